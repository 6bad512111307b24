//! What clients have to show changes: whoever was let in before has to connect anew. A renewed certificate of the gateway
//! ends nothing.

use std::{fmt::Write as _, path::Path};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::{Reloading, SECRET, with_secret};
use crate::{
    tls::pki::{Authority, Client, shown},
    world::{Act, NOW_S, Reply, Upstream, configuration, read_reply, sign, within},
};

const ENDED: &str = "hookward_connections_ended_total{reason=\"terms\"}";

/// A connection that is kept alive.
struct Kept(TlsStream<TcpStream>);

impl Kept {
    async fn open(gateway: &Reloading, client: &Client) -> Self {
        Self(client.connect(gateway.world.gateway.public, "a.example").await.expect("a handshake"))
    }

    async fn ask(&mut self, body: &str) {
        let mut head = format!("POST /hooks/a HTTP/1.1\r\nhost: a.example\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in sign("partssource", &format!("{SECRET}-a"), body.as_bytes(), NOW_S) {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        self.0.write_all(format!("{head}\r\n{body}").as_bytes()).await.expect("it is open");
    }

    async fn answer(&mut self) -> Reply {
        within("an answer", read_reply(&mut self.0)).await
    }

    async fn send(&mut self, body: &str) -> u16 {
        self.ask(body).await;
        self.answer().await.status
    }

    /// It was closed, and nothing was said before.
    async fn ends(mut self) {
        assert!(!matches!(within("the end", self.0.read(&mut [0; 1])).await, Ok(1..)));
    }
}

/// The text of a configuration with TLS: these keys beside its certificate, and those of its one source.
fn text(upstream: &Upstream, data: &Path, tls: &str, source: &str) -> String {
    let text = configuration(&with_secret("a", source), "", &upstream.url(), data);
    text.replacen("[server]", &format!("[server]\ntls = {{ cert = \"a.crt\", key = \"a.key\"{tls} }}"), 1)
}

const RESPOND: &str = "upstream = \"up\"\nmode = \"respond\"";

#[tokio::test]
async fn connections_that_other_authorities_let_in_are_answered_and_end() {
    let (upstream, data) = (Upstream::start().await, tempfile::tempdir().expect("a directory"));
    let path = data.path().to_owned();
    let [servers, old, new] = ["servers", "old", "new"].map(Authority::new);
    let renew = || {
        let pair = servers.issue(&["a.example"]);
        pair.write(&path, "a");
        pair.der
    };
    renew();
    old.write(&path.join("old.pem"));
    new.write(&path.join("new.pem"));
    let client = Client::trusting(&servers);
    let (by_old, by_new) = [&old, &new].map(|of| client.showing(&of.issue(&["client.example"]))).into();
    let with = |tls: &str| text(&upstream, &path, tls, RESPOND);
    let first = with(", client_ca = \"old.pem\"");
    let gateway = Reloading::start_as(&first, NOW_S, upstream.clone(), data).await;
    let world = &gateway.world;

    let (mut idle, mut busy) = (Kept::open(&gateway, &by_old).await, Kept::open(&gateway, &by_old).await);
    assert_eq!((idle.send("{\"n\":1}").await, idle.send("{\"n\":2}").await), (200, 200));
    upstream.script([Act::Hang(200)]);
    busy.ask("{\"n\":3}").await;
    upstream.wait_for(3).await;
    gateway.write_as(&with(", client_ca = \"new.pem\""));
    gateway.reload().await;
    idle.ends().await;
    upstream.let_go();
    let answer = busy.answer().await;
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (200, "close"));
    busy.ends().await;
    world.until_metric(ENDED, 2).await;
    by_old.send(world.gateway.public, "a.example", SECRET, "/livez").await.expect_err("not any more");

    // Another certificate of the gateway, and the same authorities written anew, take nothing from anybody.
    let mut kept = Kept::open(&gateway, &by_new).await;
    assert_eq!(kept.send("{\"n\":4}").await, 200);
    let renewed = renew();
    std::fs::write(path.join("new.pem"), format!("\n{}", std::fs::read_to_string(path.join("new.pem")).expect("read")))
        .expect("written");
    world.gateway.look_at_certificates().await;
    assert_eq!(shown(&Kept::open(&gateway, &by_new).await.0), renewed);
    assert_eq!(kept.send("{\"n\":5}").await, 200);
    let renewed = renew();
    assert_eq!(gateway.ask("{}").await.1["outcome"], "unchanged");
    assert_eq!(shown(&Kept::open(&gateway, &by_new).await.0), renewed);
    assert_eq!(kept.send("{\"n\":6}").await, 200);
    assert_eq!(world.metric(ENDED).await, 2);

    // The file alone is another.
    old.write(&path.join("new.pem"));
    world.gateway.look_at_certificates().await;
    kept.ends().await;
    // No certificate is wanted any more, then one is again.
    let mut kept = Kept::open(&gateway, &by_old).await;
    assert_eq!(kept.send("{\"n\":7}").await, 200);
    gateway.write_as(&with(""));
    gateway.reload().await;
    kept.ends().await;
    let mut kept = Kept::open(&gateway, &client).await;
    assert_eq!(kept.send("{\"n\":8}").await, 200);
    gateway.write_as(&with(", client_ca = \"new.pem\""));
    gateway.reload().await;
    kept.ends().await;
    assert_eq!(upstream.received().len(), 8, "nothing else was served");
}

#[tokio::test]
async fn a_source_that_trusts_another_issuer_does_so_on_open_connections() {
    let (upstream, data) = (Upstream::start().await, tempfile::tempdir().expect("a directory"));
    let path = data.path().to_owned();
    let [servers, old, new] = ["servers", "old", "new"].map(Authority::new);
    servers.issue(&["a.example"]).write(&path, "a");
    old.write(&path.join("old.pem"));
    new.write(&path.join("new.pem"));
    let by_old = Client::trusting(&servers).showing(&old.issue(&["client.example"]));
    let of =
        |issuer: &str| text(&upstream, &path, "", &format!("{RESPOND}\nclient_cert = {{ issuer = \"{issuer}.pem\" }}"));
    let gateway = Reloading::start_as(&of("old"), NOW_S, upstream.clone(), data).await;
    let mut kept = Kept::open(&gateway, &by_old).await;
    assert_eq!(kept.send("{\"n\":1}").await, 200);
    gateway.write_as(&of("new"));
    gateway.reload().await;
    assert_eq!(kept.send("{\"n\":2}").await, 401, "the listener lets anybody in, and the source says no");

    // Without such a source nobody is asked for a certificate: who came then could not show one on that connection.
    gateway.write_as(&text(&upstream, &path, "", RESPOND));
    gateway.reload().await;
    let mut unasked = Kept::open(&gateway, &by_old).await;
    assert_eq!(unasked.send("{\"n\":3}").await, 200);
    gateway.write_as(&of("old"));
    gateway.reload().await;
    unasked.ends().await;
    assert_eq!(Kept::open(&gateway, &by_old).await.send("{\"n\":4}").await, 200);
}
