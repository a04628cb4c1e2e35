//! Light clients of a reflector: enough BGP to announce some routes and to count those that come.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bgp::HoldTime;
use bgp::wire::{
    self, AsnWidth, Attributes, BgpIdentifier, Capability, Context, Form, Kind, Nlri, Open, Update,
};
use lab::Error;
use model::net::{Asn, Cidr, Family};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// How often and how long a client tries to connect.
const RETRY: (Duration, usize) = (Duration::from_millis(200), 150);

/// A session that is established.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    addr: Ipv4Addr,
    buffer: Vec<u8>,
    asn: u32,
}

impl Client {
    /// Connects from `addr` and waits for the session; a reflector that has just been started may
    /// refuse it for a while, before or after it has taken the connection.
    pub(super) async fn connect(addr: Ipv4Addr, to: Ipv4Addr, asn: u32) -> Result<Self, Error> {
        let (pause, times) = RETRY;
        let mut last = None;
        for _ in 0..times {
            match Self::try_connect(addr, to, asn).await {
                Ok(client) => return Ok(client),
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(pause).await;
        }
        let last = last.map_or_else(String::new, |error| error.to_string());
        Err(Error::wrong(format!("{addr} has no session with the reflector: {last}")))
    }

    async fn try_connect(addr: Ipv4Addr, to: Ipv4Addr, asn: u32) -> Result<Self, Error> {
        let stream = dial(addr, to).await.map_err(Error::wrong)?;
        let mut client = Self { stream, addr, buffer: Vec::new(), asn };
        client.send(&client.open().encode()).await?;
        client.send(&wire::encode_keepalive()).await?;
        let mut has_opened = false;
        while !has_opened {
            client.read().await?;
            while let Some((kind, _)) = client.message()? {
                has_opened |= kind == Kind::Keepalive;
            }
        }
        Ok(client)
    }

    fn open(&self) -> Open {
        Open {
            short_asn: u16::try_from(self.asn).unwrap_or_default(),
            hold_time: HoldTime::PROPOSED,
            identifier: BgpIdentifier(self.addr.to_bits()),
            capabilities: vec![
                Capability::Multiprotocol(Family::V4.into()),
                Capability::RouteRefresh,
                Capability::FourOctetAsn(Asn(self.asn)),
            ],
        }
    }

    /// Announces `prefixes`.
    pub(super) async fn announce(&mut self, prefixes: &[Cidr]) -> Result<(), Error> {
        let attributes = Attributes { local_pref: Some(100), ..Attributes::default() };
        let nlri: Vec<Nlri> = prefixes.iter().copied().map(Nlri::from).collect();
        let mut bytes = Vec::new();
        let next_hop = self.addr.into();
        wire::encode_announcement(&attributes, next_hop, &nlri, Form::default(), &mut bytes)
            .map_err(Error::wrong)?;
        self.send(&bytes).await
    }

    /// Reads until `count` prefixes have been announced to it.
    pub(super) async fn count_to(&mut self, count: usize) -> Result<(), Error> {
        let context = Context { width: AsnWidth::Four, is_internal: true, ..Context::default() };
        let mut seen = 0_usize;
        loop {
            while let Some((kind, body)) = self.message()? {
                if kind == Kind::Update {
                    let update = Update::decode(&body, context).map_err(Error::wrong)?;
                    let announced = update.announced.iter().map(|each| each.prefixes.len());
                    seen = announced.fold(seen, usize::saturating_add);
                }
            }
            if seen >= count {
                return Ok(());
            }
            self.read().await?;
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.stream.write_all(bytes).await.map_err(Error::wrong)
    }

    async fn read(&mut self) -> Result<(), Error> {
        let len = self.stream.read_buf(&mut self.buffer).await.map_err(Error::wrong)?;
        if len == 0 { Err(Error::wrong("the reflector closed a client's session")) } else { Ok(()) }
    }

    /// Takes the next whole message.
    fn message(&mut self) -> Result<Option<(Kind, Vec<u8>)>, Error> {
        let split = wire::split_frame(&self.buffer, wire::MAX_LEN).map_err(Error::wrong)?;
        let Some((frame, rest)) = split else { return Ok(None) };
        let (kind, body, taken) =
            (frame.kind, frame.body.to_vec(), self.buffer.len().saturating_sub(rest.len()));
        self.buffer.drain(..taken);
        Ok(Some((kind, body)))
    }
}

async fn dial(from: Ipv4Addr, to: Ipv4Addr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.into(), 0))?;
    socket.connect(SocketAddr::new(to.into(), 179)).await
}
