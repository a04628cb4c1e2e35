//! Facts about TCP sockets, over the loopback interface of a fresh namespace.

use std::io::ErrorKind;
use std::net::SocketAddr;

use kernel::socket::{self, Md5Key, Options};
use kernel::{Netns, netns, socket_diag};
use model::net::IfIndex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::sandbox::{Sandbox, addr};

/// Runs `test` in the sandbox's namespace, on a runtime of its own.
fn inside<T: Send>(netns: &Netns, test: impl AsyncFnOnce() -> T + Send) -> Result<T, netns::Error> {
    netns.run(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(test())
    })
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn connects_from_the_address_that_it_is_told() {
    let sandbox = Sandbox::new().await;
    sandbox.netlink.add_addr(IfIndex(1), addr("10.0.0.1/32")).await.unwrap();
    inside(&sandbox.netns, async || {
        let listener = socket::listen(at("127.0.0.1:179")).unwrap();
        let options = Options { local_addr: "10.0.0.1".parse().ok(), ..Options::default() };
        let stream = socket::connect(at("127.0.0.1:179"), &options).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip().to_string(), "10.0.0.1");
        assert!(stream.nodelay().unwrap());
        socket::accepted(&accepted, peer, &options).unwrap();
        assert!(accepted.nodelay().unwrap());

        let foreign = Options { local_addr: "10.9.9.9".parse().ok(), ..Options::default() };
        let error = socket::connect(at("127.0.0.1:179"), &foreign).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot bind TCP socket to 10.9.9.9:0"), "{error}");
    })
    .unwrap();
}

#[tokio::test]
async fn ended_connections_are_reset_at_both_ends() {
    let sandbox = Sandbox::new().await;
    inside(&sandbox.netns, async || {
        for listening in ["127.0.0.1:180", "[::1]:180"] {
            let listener = socket::listen(at(listening)).unwrap();
            let mut stream = socket::connect(at(listening), &Options::default()).await.unwrap();
            let (mut accepted, peer) = listener.accept().await.unwrap();
            assert!(socket_diag::end_tcp(at(listening), peer).unwrap());
            for stream in [&mut stream, &mut accepted] {
                let ended = stream.read(&mut [0]).await.unwrap_err();
                let kind = ended.kind();
                assert!(
                    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted),
                    "{ended}"
                );
            }
            // Who listens is left alone.
            assert!(!socket_diag::end_tcp(at(listening), peer).unwrap());
            socket::connect(at(listening), &Options::default()).await.unwrap();
        }
    })
    .unwrap();
}

#[tokio::test]
async fn both_families_listen_on_one_port() {
    let sandbox = Sandbox::new().await;
    inside(&sandbox.netns, async || {
        let _v4 = socket::listen(at("0.0.0.0:179")).unwrap();
        let _v6 = socket::listen(at("[::]:179")).unwrap();
        socket::connect(at("127.0.0.1:179"), &Options::default()).await.unwrap();
        socket::connect(at("[::1]:179"), &Options::default()).await.unwrap();
        let taken = socket::listen(at("0.0.0.0:179")).unwrap_err();
        assert!(taken.to_string().contains("free the port"), "{taken}");
        let refused = socket::connect(at("127.0.0.1:180"), &Options::default()).await.unwrap_err();
        assert!(refused.is_retryable(), "{refused}");
    })
    .unwrap();
}

#[tokio::test]
async fn packets_from_afar_are_not_taken() {
    let sandbox = Sandbox::new().await;
    inside(&sandbox.netns, async || {
        for listen in ["127.0.0.1:179", "[::1]:179"] {
            let near = Options { ttl: Some(255), min_ttl: Some(255), ..Options::default() };
            let listener = socket::listen(at(listen)).unwrap();
            let mut ours = socket::connect(at(listen), &near).await.unwrap();
            let (mut theirs, peer) = listener.accept().await.unwrap();
            socket::accepted(&theirs, peer, &near).unwrap();
            ours.write_all(b"near").await.unwrap();
            let mut bytes = [0; 4];
            theirs.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"near");

            // With a TTL of 254 the same bytes come from one router away.
            let far = Options { ttl: Some(254), ..Options::default() };
            socket::accepted(&ours, at(listen), &far).unwrap();
            ours.write_all(b"far!").await.unwrap();
            let read = theirs.read_exact(&mut bytes);
            let waited = tokio::time::timeout(std::time::Duration::from_millis(50), read).await;
            assert!(waited.is_err(), "{listen}");
        }
    })
    .unwrap();
}

#[tokio::test]
async fn signed_sessions_need_the_same_key() {
    let sandbox = Sandbox::new().await;
    let key = |text: &str| Md5Key::new(text.as_bytes().to_vec()).unwrap();
    let supported = inside(&sandbox.netns, async || {
        let listener = socket::listen(at("127.0.0.1:179")).unwrap();
        let range = "127.0.0.0/8".parse().unwrap();
        match socket::set_listener_key(&listener, range, Some(&key("secret"))) {
            Ok(()) => {}
            // A kernel without CONFIG_TCP_MD5SIG says so, which is all that can be seen.
            Err(error) => return Err(error.to_string()),
        }
        let right = Options { md5_key: Some(key("secret")), ..Options::default() };
        socket::connect(at("127.0.0.1:179"), &right).await.unwrap();
        let wrong = Options { md5_key: Some(key("other")), ..Options::default() };
        let connect = socket::connect(at("127.0.0.1:179"), &wrong);
        let waited = tokio::time::timeout(std::time::Duration::from_millis(50), connect).await;
        assert!(waited.is_err());
        Ok(())
    })
    .unwrap();
    if let Err(error) = supported {
        assert!(error.contains("TCP_MD5SIG"), "{error}");
    }
}

#[test]
fn keys_are_never_shown_and_have_a_length() {
    assert_eq!(format!("{:?}", Md5Key::new(b"secret".to_vec()).unwrap()), "Md5Key(…)");
    assert!(Md5Key::new(Vec::new()).is_err());
    assert!(Md5Key::new(vec![b'x'; 80]).is_ok());
    assert!(Md5Key::new(vec![b'x'; 81]).is_err());
}
