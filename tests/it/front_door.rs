//! The front door as a whole: HTTP/2, proxies in front, limits that all listeners share, and a process that runs out of
//! descriptors.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    running::{Gateway, hookward_under},
    world::{NOW_S, World, configuration, read_reply, request, sign, within},
};

const SECRET: &str = "a-secret-of-some-length";
const SOURCE: &str = "[sources.orders]\nprovider = \"partssource\"\nsecrets = [{ value = \"a-secret-of-some-length\" }]\nupstream = \"up\"\n";
const PATH: &str = "/hooks/orders";

/// A world whose `[server]` has other lines instead of its one listener.
async fn world(sources: &str, server: &str) -> World {
    World::start_edited(sources, |text| text.replacen("listen = \"127.0.0.1:0\"", server, 1)).await
}

type Http2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn http2(world: &World) -> Http2 {
    let stream = TcpStream::connect(world.gateway.public).await.expect("it listens");
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .expect("it speaks HTTP/2");
    tokio::spawn(connection);
    sender
}

fn webhook(body: &'static [u8]) -> Request<Full<Bytes>> {
    let mut request = Request::post(format!("http://hooks.example{PATH}"));
    for (name, value) in sign("partssource", SECRET, body, NOW_S) {
        request = request.header(name, value);
    }
    request.body(Full::from(body)).expect("a request")
}

async fn ask(client: &mut Http2, request: Request<Full<Bytes>>) -> Response<Incoming> {
    within("an answer", client.send_request(request)).await.expect("an answer")
}

#[tokio::test]
async fn webhooks_over_http_2_are_as_any_other() {
    let world = world(SOURCE, "listen = [{ at = \"127.0.0.1:0\", h2c = true }]").await;
    let mut client = http2(&world).await;
    let answer = ask(&mut client, webhook(b"{\"n\":1}")).await;
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    let received = world.upstream.wait_for(1).await;
    assert_eq!(received[0].body, "{\"n\":1}");
    assert_eq!(received[0].header("x-forwarded-host"), Some("hooks.example"));
    // A signature that fails, too much of a body, an unknown path: the answers of HTTP/1.1, and the connection stays.
    let mut forged = webhook(b"{\"n\":2}");
    *forged.body_mut() = Full::from("{\"n\":3}");
    let mut large = webhook(b"");
    *large.body_mut() = Full::from(vec![b'x'; 3 << 20]);
    let mut unknown = webhook(b"");
    *unknown.uri_mut() = "http://hooks.example/hooks/none".parse().expect("a URI");
    let mut two_hosts = webhook(b"{}");
    two_hosts.headers_mut().insert("host", "other.example".parse().expect("a value"));
    for (request, status) in
        [(forged, 401), (large, 413), (unknown, 404), (two_hosts, 400), (webhook(b"{\"n\":1}"), 200)]
    {
        let answer = ask(&mut client, request).await;
        assert_eq!(answer.status(), status);
        assert!(!answer.headers().contains_key("connection"));
        answer.into_body().collect().await.expect("a whole answer");
    }
    // On the same listener HTTP/1.1 is spoken as ever.
    assert_eq!(world.send("partssource", SECRET, PATH, b"{}", 0).await.status, 200);
}

#[tokio::test]
async fn forty_webhooks_at_once_on_one_connection_are_all_taken() {
    let world = world(SOURCE, "listen = [{ at = \"127.0.0.1:0\", h2c = true }]").await;
    let mut client = http2(&world).await;
    // By its answer the client knows how many it may send at once; the rest wait with it.
    assert_eq!(ask(&mut client, webhook(b"{}")).await.status(), 200);
    let answers = (0..40).map(|n| {
        let (mut client, body) = (client.clone(), vec![b'0' + n; 200 << 10].leak());
        tokio::spawn(async move { ask(&mut client, webhook(body)).await.status() })
    });
    for answer in answers.collect::<Vec<_>>() {
        assert_eq!(answer.await.expect("no panic"), 200);
    }
    assert_eq!(world.metric("hookward_webhooks_total{source=\"orders\",code=\"accepted\"}").await, 41);
}

#[tokio::test]
async fn the_proxy_protocol_names_the_client_and_only_a_trusted_proxy_may_speak_it() {
    let source = SOURCE.replace("upstream =", "allow = [\"203.0.113.0/24\"]\nupstream =");
    let listen = "listen = [{ at = \"127.0.0.1:0\", proxy_protocol = true }]\ntrusted_proxies = ";
    let world = world(&source, &format!("{listen}[\"127.0.0.0/8\"]")).await;
    let signed: Vec<_> = sign("partssource", SECRET, b"{}", NOW_S);
    let signed: Vec<_> = signed.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let signed = signed.concat();
    let post = format!("POST {PATH} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n{signed}\r\n{{}}");
    for (client, status) in [("203.0.113.7", 200), ("198.51.100.7", 503)] {
        let mut stream = TcpStream::connect(world.gateway.public).await.expect("it listens");
        let bytes = format!("PROXY TCP4 {client} 192.0.2.1 56324 443\r\n{post}");
        stream.write_all(bytes.as_bytes()).await.expect("sent");
        assert_eq!(within("an answer", read_reply(&mut stream)).await.status, status, "{client}");
    }
    let mut stream = TcpStream::connect(world.gateway.public).await.expect("it listens");
    stream.write_all(post.as_bytes()).await.expect("sent");
    assert!(!matches!(within("the end", stream.read(&mut [0; 1])).await, Ok(1..)), "no header, no answer");
    world.until_metric("hookward_connections_ended_total{reason=\"proxy_protocol\"}", 1).await;

    let stranger = self::world(&source, &format!("{listen}[\"10.0.0.0/8\"]")).await;
    let mut stream = TcpStream::connect(stranger.gateway.public).await.expect("it listens");
    let _ = stream.write_all(format!("PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n{post}").as_bytes()).await;
    assert!(!matches!(within("the end", stream.read(&mut [0; 1])).await, Ok(1..)), "from anybody");
    stranger.until_metric("hookward_connections_ended_total{reason=\"proxy_protocol\"}", 1).await;
}

#[tokio::test]
async fn all_listeners_share_the_places_and_probes_have_some_of_their_own() {
    let listen = "listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\nlimits.connections_max = 2";
    let world = world(SOURCE, listen).await;
    let second = world.gateway.listening[1].tcp().expect("an address");
    let mut held = Vec::new();
    for address in [world.gateway.public, second] {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
        assert_eq!(within("an answer", read_reply(&mut stream)).await.status, 200);
        held.push(stream);
    }
    for address in [world.gateway.public, second] {
        let refused = request(address, "POST", PATH, &[], b"{}").await;
        assert_eq!((refused.status, refused.headers["connection"].as_str()), (503, "close"));
        assert_eq!(request(address, "GET", "/readyz", &[], b"").await.status, 200);
    }
    assert_eq!(world.metric("hookward_connections_refused_total").await, 2);
    // More than there are places for probes, and none of them asks anything: the first of them make room.
    for _ in 0..20 {
        held.push(TcpStream::connect(second).await.expect("it listens"));
    }
    assert_eq!(request(second, "GET", "/healthz", &[], b"").await.status, 200);
    drop(held);
    world.until_metric("hookward_connections_ended_total{reason=\"done\"}", 2).await;
    assert_eq!(world.send("partssource", SECRET, PATH, b"{}", 0).await.status, 200);
}

#[tokio::test]
async fn a_process_out_of_descriptors_takes_connections_again_when_it_has_some() {
    const DESCRIPTORS: usize = 96;
    let home = TempDir::new().expect("a directory");
    let limited = format!("ulimit -n {DESCRIPTORS}; exec \"$0\" \"$@\"");
    let text = configuration(SOURCE, "", "http://127.0.0.1:9/in", home.path());
    let gateway = Gateway::start_as(hookward_under("sh", &["-c", &limited]), home.path(), &text);
    // More than there can be descriptors for: the rest wait where the kernel keeps them.
    let mut held = Vec::new();
    for _ in 0..DESCRIPTORS + 20 {
        held.push(within("a connection", TcpStream::connect(gateway.public)).await.expect("it listens"));
    }
    gateway.process.line_with("failed to accept a connection");
    drop(held);
    assert_eq!(request(gateway.public, "GET", "/livez", &[], b"").await.status, 200);
    let (code, log) = gateway.end();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("failed to accept a connection").count(), 1, "said once: {log}");
}
