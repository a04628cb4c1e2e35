//! Moving bytes between one TCP connection and the speaker.

use std::io;
use std::time::Duration;

use ::bgp::{ConnectionId, Input};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::run::Message;

/// The most bytes that are read at once.
const READ_LEN: usize = 64 * 1024;
/// How long one write may take: a peer that reads nothing for so long is dead (RFC 9687 §4).
const SEND_HOLD_TIME: Duration = Duration::from_secs(480);
/// How long the peer has to take our last words before the connection is torn down.
const LINGER: Duration = Duration::from_secs(1);

/// Runs until either side closes. Dropping the sender of `queue` closes our side,
/// after what is queued has been written.
pub(super) async fn run(
    id: ConnectionId,
    stream: TcpStream,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    messages: mpsc::Sender<Message>,
) {
    let (mut reading, mut writing) = stream.into_split();
    let why = tokio::select! {
        why = read_all(id, &mut reading, &messages) => why,
        written = write_all(id, &mut writing, &mut queue, &messages) => match written {
            Err(error) => error.to_string(),
            Ok(()) => return linger(reading, writing).await,
        },
    };
    // Nobody listening means that the speaker has ended, which closes everything anyway.
    let _ = messages.send(Message::Input(Input::Closed { connection: id, why })).await;
}

/// Passes on what the peer sends; returns why that ended.
async fn read_all(
    connection: ConnectionId,
    reading: &mut OwnedReadHalf,
    messages: &mpsc::Sender<Message>,
) -> String {
    let mut buffer = Vec::with_capacity(READ_LEN);
    loop {
        buffer.clear();
        match reading.read_buf(&mut buffer).await {
            Ok(0) => return "the peer closed the connection".to_owned(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
        let received = Input::Received { connection, bytes: buffer.clone() };
        if messages.send(Message::Input(received)).await.is_err() {
            return "the speaker has ended".to_owned();
        }
    }
}

/// Writes what is queued; returns when the queue's sender is gone.
async fn write_all(
    connection: ConnectionId,
    writing: &mut OwnedWriteHalf,
    queue: &mut mpsc::UnboundedReceiver<Bytes>,
    messages: &mpsc::Sender<Message>,
) -> io::Result<()> {
    while let Some(bytes) = queue.recv().await {
        tokio::time::timeout(SEND_HOLD_TIME, writing.write_all(&bytes)).await??;
        let sent = Input::Sent { connection, len: bytes.len() };
        if messages.send(Message::Input(sent)).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Closes our side and reads the rest of the peer's, so that the kernel does not answer
/// unread bytes with a reset, which would overtake a NOTIFICATION.
async fn linger(mut reading: OwnedReadHalf, mut writing: OwnedWriteHalf) {
    let _ = writing.shutdown().await;
    let drained = async {
        let mut sink = [0; 4096];
        while matches!(reading.read(&mut sink).await, Ok(len) if len > 0) {}
    };
    let _ = tokio::time::timeout(LINGER, drained).await;
}
