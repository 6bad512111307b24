//! TLS towards providers: what a client is shown, what it must show, and certificates that change meanwhile.

pub(crate) mod pki;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use self::pki::{Authority, Client, Pair, self_signed, shown};
use crate::world::{World, request, within};

const SECRET: &str = "a-secret-of-some-length";
const SOURCE: &str = "[sources.orders]\nprovider = \"partssource\"\nsecrets = [{ value = \"a-secret-of-some-length\" }]\nupstream = \"up\"\n";
const PATH: &str = "/hooks/orders";

/// A world whose first listener has TLS with these keys (`tls = { … }` without the braces), and whose second has none.
async fn world(tls: &str, sources: &str) -> World {
    let listen = format!("tls = {{ {tls} }}\nlisten = [\"127.0.0.1:0\", {{ at = \"127.0.0.1:0\", tls = false }}]");
    World::start_edited(sources, |text| text.replacen("listen = \"127.0.0.1:0\"", &listen, 1)).await
}

fn plaintext(world: &World) -> SocketAddr {
    world.gateway.listening[1].tcp().expect("an address")
}

fn pair_at(directory: &Path, name: &str) -> String {
    let file = |extension: &str| directory.join(format!("{name}.{extension}")).display().to_string();
    format!("cert = {:?}, key = {:?}", file("crt"), file("key"))
}

struct Place {
    files: TempDir,
    authority: Authority,
    client: Client,
}

impl Place {
    /// An authority that `client` trusts, and the certificate `a` for `a.example` and `127.0.0.1`.
    fn new() -> Self {
        let (files, authority) = (tempfile::tempdir().expect("a directory"), Authority::new("servers"));
        authority.issue(&["a.example", "127.0.0.1"]).write(files.path(), "a");
        let client = Client::trusting(&authority);
        Self { files, authority, client }
    }
    fn path(&self) -> &Path {
        self.files.path()
    }
    fn tls(&self) -> String {
        pair_at(self.path(), "a")
    }
    /// An authority of clients, in `NAME.pem`; and the key of a configuration that names it.
    fn clients(&self, name: &str) -> (Authority, String) {
        let authority = Authority::new(name);
        let file = self.path().join(format!("{name}.pem"));
        authority.write(&file);
        (authority, format!("{:?}", file.display().to_string()))
    }
}

#[tokio::test]
async fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let place = Place::new();
    // In one certificate are its own name and that of the first, for a client that checks names.
    for (file, names) in [("b", &["b.example", "unknown.example"][..]), ("c", &["*.c.example", "192.0.2.1"])] {
        place.authority.issue(names).write(place.path(), file);
    }
    let more = |name| format!("{{ {} }}", pair_at(place.path(), name));
    let tls = format!("{}, certificates = [{}, {}]", place.tls(), more("b"), more("c"));
    let world = world(&tls, SOURCE).await;
    let (to, client) = (world.gateway.public, &place.client);
    for name in ["a.example", "b.example", "any.c.example", "127.0.0.1"] {
        // The handshake itself holds the certificate to the name.
        client.connect(to, name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(client.send(to, name, SECRET, PATH).await.expect("an answer").status, 200, "{name}");
    }
    let other = client.connect(to, "nobody.example").await.expect_err("the first certificate has another name");
    assert!(other.to_string().contains("certificate not valid for name"), "{other}");
    assert_eq!(client.with_tls_12().send(to, "b.example", SECRET, PATH).await.expect("an answer").status, 200);
    let ends = world.metric("hookward_certificate_expires_seconds{name=\"b.example\"}").await;
    assert_eq!(ends, 4_102_444_800, "2100-01-01");
    // One word of HTTP on a TLS port is answered by nothing that is HTTP, and harms nothing.
    let mut plain = TcpStream::connect(to).await.expect("it listens");
    plain.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    within("the end", plain.read_to_end(&mut answer)).await.expect("closed");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn what_is_negotiated_is_http_and_nothing_old() {
    let place = Place::new();
    let world = world(&place.tls(), SOURCE).await;
    let (to, client) = (world.gateway.public, &place.client);
    let negotiated = async |protocols: &[&str]| {
        let stream = client.with_alpn(protocols).connect(to, "a.example").await?;
        std::io::Result::Ok(stream.get_ref().1.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()))
    };
    assert_eq!(negotiated(&["http/1.1", "h2"]).await.expect("a handshake").as_deref(), Some("h2"));
    assert_eq!(negotiated(&["http/1.1"]).await.expect("a handshake").as_deref(), Some("http/1.1"));
    assert_eq!(negotiated(&[]).await.expect("a handshake"), None);
    for refused in ["acme-tls/1", "spdy/3", "http/1.0"] {
        negotiated(&[refused]).await.expect_err(refused);
    }

    // The same hello for TLS 1.2 and for what came before: a hello back, and the alert `protocol_version`.
    for (version, expected) in
        [([3, 3], &[22, 3, 3][..]), ([3, 2], &[21, 3, 3, 0, 2, 2, 70]), ([3, 1], &[21, 3, 3, 0, 2, 2, 70])]
    {
        let mut old = TcpStream::connect(to).await.expect("it listens");
        old.write_all(&hello(version)).await.expect("sent");
        let mut answer = vec![0; expected.len()];
        within("an answer", old.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(answer, expected, "{version:?}");
    }
}

/// A hello with one cipher suite, one group and one signature algorithm that TLS 1.2 and certificates here have.
fn hello(version: [u8; 2]) -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 29][..], // x25519
        &[0, 11, 0, 2, 1, 0],            // points uncompressed
        &[0, 13, 0, 4, 0, 2, 4, 3],      // ECDSA P-256 with SHA-256
    ]
    .concat();
    let short = |bytes: usize| u8::try_from(bytes).expect("short");
    let mut body = version.to_vec();
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, short(extensions.len())]);
    body.extend(extensions);
    [&[22, 3, 1, 0, short(body.len() + 4), 1, 0, 0, short(body.len())][..], &body].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_change_under_load_and_no_handshake_fails() {
    const CHANGES: u64 = 6;
    let place = Place::new();
    // As volumes are mounted: the files are behind a link, which is replaced in one step.
    let version = |number: u64| place.path().join(format!("version-{number}"));
    let issue = |number: u64| -> Pair {
        let pair = place.authority.issue(&["a.example"]);
        std::fs::create_dir(version(number)).expect("made");
        pair.write(&version(number), "tls");
        pair
    };
    let link = |number: u64| {
        std::os::unix::fs::symlink(version(number), place.path().join("new")).expect("linked");
        std::fs::rename(place.path().join("new"), place.path().join("current")).expect("replaced");
    };
    let first = issue(0);
    link(0);
    let world = world(&pair_at(&place.path().join("current"), "tls"), SOURCE).await;
    let to = world.gateway.public;
    let mut open = place.client.connect(to, "a.example").await.expect("a handshake");
    assert_eq!(shown(&open), first.der);

    let (over, handshakes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (client, over, handshakes) = (place.client.clone(), over.clone(), handshakes.clone());
            tokio::spawn(async move {
                while !over.load(SeqCst) {
                    client.connect(to, "a.example").await.expect("no handshake fails");
                    handshakes.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    let mut last = first.der;
    for number in 1..=CHANGES {
        let until = handshakes.load(SeqCst) + 20;
        within("handshakes", async {
            while handshakes.load(SeqCst) < until {
                tokio::task::yield_now().await;
            }
        })
        .await;
        last = issue(number).der;
        link(number);
        world.gateway.look_at_certificates().await;
        let stream = place.client.connect(to, "a.example").await.expect("a handshake");
        assert_eq!(shown(&stream), last, "change {number}");
    }
    over.store(true, SeqCst);
    for task in load {
        task.await.expect("no handshake failed");
    }
    assert_eq!(world.metric("hookward_certificate_changes_total{result=\"taken\"}").await, CHANGES);

    // What was open before all of them goes on.
    open.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    let _ = within("an answer", open.read_to_string(&mut answer)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // A pair that is none, one that has expired, and none at all: the last good one is served on.
    let refused = "hookward_certificate_changes_total{result=\"refused\"}";
    issue(90);
    place.authority.issue(&["a.example"]).write(&version(90), "other");
    std::fs::copy(version(90).join("other.key"), version(90).join("tls.key")).expect("copied");
    issue(91);
    place.authority.issue_until(&["a.example"], 2021).write(&version(91), "tls");
    std::fs::create_dir(version(92)).expect("made");
    for (count, number) in [(1, 90), (2, 91), (3, 92)] {
        link(number);
        world.gateway.look_at_certificates().await;
        assert_eq!(world.metric(refused).await, count - 1, "of two files one may be written after the other");
        world.gateway.look_at_certificates().await;
        world.gateway.look_at_certificates().await;
        assert_eq!(world.metric(refused).await, count, "told once");
        let stream = place.client.connect(to, "a.example").await.expect("a handshake");
        assert_eq!(shown(&stream), last, "version {number}");
    }
    link(CHANGES);
    world.gateway.look_at_certificates().await;
    assert_eq!(shown(&place.client.connect(to, "a.example").await.expect("a handshake")), last);
}

#[tokio::test]
async fn a_source_takes_webhooks_from_clients_of_its_issuer_only() {
    let place = Place::new();
    let (partners, file) = place.clients("partners");
    let (strangers, _) = place.clients("strangers");
    let world = world(&place.tls(), &format!("{SOURCE}client_cert = {{ issuer = {file} }}\n")).await;
    let to = world.gateway.public;
    let client = &place.client;
    let (known, strange) = (partners.issue(&["client.example"]), strangers.issue(&["client.example"]));
    let expired = partners.issue_until(&["client.example"], 2022);

    let unsigned = client.showing(&known).send(to, "a.example", "another-secret-entirely", PATH).await;
    let unsigned = unsigned.expect("an answer");
    assert_eq!(unsigned.status, 401, "the certificate is no signature");
    for client in [client.clone(), client.with_tls_12()] {
        let accepted = client.showing(&known).send(to, "a.example", SECRET, PATH).await;
        assert_eq!(accepted.expect("an answer").status, 200);
        for (who, wrong) in [
            ("of another issuer", client.showing(&strange)),
            ("expired", client.showing(&expired)),
            ("without a certificate", client.clone()),
            ("by itself", client.showing(&self_signed("client.example"))),
        ] {
            let refused = wrong.send(to, "a.example", SECRET, PATH).await.expect("an answer");
            assert_eq!(refused.status, 401, "{who}");
            assert_eq!(refused.body, unsigned.body, "{who}: nothing tells which proof was missing");
        }
        // Whoever copied the certificate has not its key.
        let copied = client.showing_with(&known, &strange.key).send(to, "a.example", SECRET, PATH).await;
        copied.expect_err("the handshake fails");
    }
    let signed = crate::world::sign("partssource", SECRET, b"{}", crate::world::NOW_S);
    let headers: Vec<_> = signed.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let plain = request(plaintext(&world), "POST", PATH, &headers, b"{}").await;
    assert_eq!((plain.status, &plain.body), (401, &unsigned.body), "over plaintext nobody shows anything");
    let refused = "hookward_webhooks_total{source=\"orders\",code=\"client_certificate\"}";
    assert_eq!(world.metric(refused).await, 9);
    // One webhook went through, and its copy.
    assert_eq!(world.upstream.wait_for(1).await.len(), 1);
}

#[tokio::test]
async fn a_source_takes_webhooks_from_the_one_client_that_it_pins() {
    let place = Place::new();
    let (pinned, other) = (self_signed("client.example"), self_signed("client.example"));
    let fingerprint = pinned.fingerprint();
    let world = world(&place.tls(), &format!("{SOURCE}client_cert = {{ fingerprints = [\"{fingerprint}\"] }}\n")).await;
    let to = world.gateway.public;
    for client in [place.client.clone(), place.client.with_tls_12()] {
        let status = async |client: Client| client.send(to, "a.example", SECRET, PATH).await.map(|reply| reply.status);
        assert_eq!(status(client.showing(&pinned)).await, Ok(200));
        assert_eq!(status(client.showing(&other)).await, Ok(401));
        assert_eq!(status(client.clone()).await, Ok(401));
        status(client.showing_with(&pinned, &other.key)).await.expect_err("the handshake fails");
    }
}

#[tokio::test]
async fn a_listener_lets_in_whom_its_authorities_vouch_for() {
    let place = Place::new();
    let (partners, file) = place.clients("partners");
    let known = partners.issue(&["client.example"]);
    let strange = self_signed("client.example");
    let pinned = format!("client_cert = {{ fingerprints = [\"{}\"] }}\n", strange.fingerprint());
    // Required or not; whether a source pins what the authorities do not vouch for; who gets which answer.
    for (required, source, by_known, by_strange, by_none) in [
        (true, "", Ok(200), Err(()), Err(())),
        (true, pinned.as_str(), Ok(401), Err(()), Err(())),
        (false, "", Ok(200), Err(()), Ok(200)),
        (false, pinned.as_str(), Ok(401), Ok(200), Ok(401)),
    ] {
        let tls = format!("{}, client_ca = {file}, client_required = {required}", place.tls());
        let world = world(&tls, &format!("{SOURCE}{source}")).await;
        let to = world.gateway.public;
        for client in [place.client.clone(), place.client.with_tls_12()] {
            let status = async |client: Client| {
                client.send(to, "a.example", SECRET, PATH).await.map(|reply| reply.status).map_err(drop)
            };
            let case = format!("required {required}, {source:?}");
            assert_eq!(status(client.showing(&known)).await, by_known, "{case}");
            assert_eq!(status(client.showing(&strange)).await, by_strange, "{case}");
            assert_eq!(status(client.clone()).await, by_none, "{case}");
        }
    }
}

#[tokio::test]
async fn authorities_of_clients_change_like_certificates() {
    let place = Place::new();
    let (old, file) = place.clients("partners");
    let world = world(&format!("{}, client_ca = {file}", place.tls()), SOURCE).await;
    let to = world.gateway.public;
    let status = async |authority: &Authority| {
        let client = place.client.showing(&authority.issue(&["client.example"]));
        client.send(to, "a.example", SECRET, PATH).await.map(|reply| reply.status).map_err(drop)
    };
    assert_eq!(status(&old).await, Ok(200));
    let (new, _) = place.clients("partners");
    world.gateway.look_at_certificates().await;
    assert_eq!((status(&old).await, status(&new).await), (Err(()), Ok(200)));
    std::fs::write(place.path().join("partners.pem"), "no authority").expect("written");
    for _ in 0..2 {
        world.gateway.look_at_certificates().await;
        assert_eq!((status(&old).await, status(&new).await), (Err(()), Ok(200)), "what is broken changes nothing");
    }
}

#[tokio::test]
async fn a_client_may_not_show_more_than_a_chain_of_certificates() {
    let place = Place::new();
    let pinned = self_signed("client.example");
    let source = format!("{SOURCE}client_cert = {{ fingerprints = [\"{}\"] }}\n", pinned.fingerprint());
    let world = world(&place.tls(), &source).await;
    let status = async |more: usize| {
        let client = place.client.showing(&pinned).showing_also(more);
        client.send(world.gateway.public, "a.example", SECRET, PATH).await.map(|reply| reply.status).map_err(drop)
    };
    assert_eq!((status(0).await, status(5).await, status(6).await), (Ok(200), Ok(200), Err(())));
}

#[tokio::test]
async fn until_the_first_certificate_is_issued_handshakes_fail_and_readiness_does_not() {
    let place = Place::new();
    let (_, file) = place.clients("directory");
    let acme = format!(
        "acme = {{ domains = [\"a.example\"], directory = \"https://127.0.0.1:1/directory\", ca = {file}, cache = {:?} }}",
        place.path().join("kept").display().to_string()
    );
    let world = world(&acme, SOURCE).await;
    world.until_metric("hookward_certificate_orders_total{result=\"failed\"}", 1).await;
    let to = world.gateway.public;
    place.client.connect(to, "a.example").await.expect_err("there is no certificate");
    place.client.with_alpn(&["acme-tls/1"]).connect(to, "a.example").await.expect_err("nobody asked for a proof");
    let ready = request(world.gateway.admin, "GET", "/readyz", &[], b"").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    assert_eq!(request(plaintext(&world), "GET", "/livez", &[], b"").await.status, 200);

    // With a certificate of files beside it, those names are served all along.
    let both = format!("{}, {acme}", place.tls());
    let world = self::world(&both, SOURCE).await;
    place.client.connect(world.gateway.public, "a.example").await.expect("a handshake");
    // What failed before the restart is not tried again at once.
    let tried = world.metric("hookward_certificate_orders_total{result=\"failed\"}").await;
    assert_eq!(tried, 0);
}

#[tokio::test]
async fn an_upstream_is_shown_the_certificate_that_it_asks_for() {
    let place = Place::new();
    let (services, file) = place.clients("services");
    services.issue(&["gateway.example"]).write(place.path(), "own");
    place.authority.write(&place.path().join("servers.pem"));
    // A gateway is the upstream of another: it lets in whom its authorities vouch for.
    let inner_tls = format!("{}, client_ca = {file}", place.tls());
    let inner = world(&inner_tls, SOURCE).await;
    let ca = format!("ca = {:?}", place.path().join("servers.pem").display().to_string());
    let came = "hookward_webhooks_total{source=\"orders\"";
    for (shows, reaches) in [(String::new(), 0), (format!(", {}", pair_at(place.path(), "own")), 1)] {
        let url = format!("https://{}{PATH}", inner.gateway.public);
        let outer = World::start(&format!(
            "{}\n[upstreams.inner]\nurl = \"{url}\"\ntls = {{ {ca}{shows} }}\n",
            SOURCE.replace("\"up\"", "\"inner\"")
        ))
        .await;
        assert_eq!(outer.send("partssource", SECRET, PATH, b"{\"n\":1}", 0).await.status, 200);
        outer.until_metric("hookward_attempts_total{upstream=\"inner\"", 1).await;
        assert_eq!(inner.metric(came).await, reaches, "with {shows:?}");
    }
}
