//! Who gets a place, whose connection it is, and who has to go for another.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_proxy_says_whose_connection_it_is_whatever_is_spoken() {
    let mut house = House::new(limits());
    house.entrance.proxy_protocol = true;
    let line = "PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n";
    let (mut client, _ended) = house.connect();
    client.write_all(&[line.as_bytes(), REQUEST].concat()).await.expect("taken");
    assert!(read_answer(&mut client).await.contains("Some(203.0.113.7)"));

    let (stream, _ended) = house.connect();
    let mut client = Http2 { stream, seen: Vec::new() };
    client.send(&[line.as_bytes(), PREFACE, &frame(4, 0, 0, &[]), &get(1, &[])].concat()).await;
    assert!(client.text(1).await.starts_with("Some(203.0.113.7)"));

    let (mut client, _ended) = house.connect();
    client.write_all(&[b"PROXY UNKNOWN\r\n", REQUEST].concat()).await.expect("taken");
    assert!(read_answer(&mut client).await.contains("None "), "the proxy itself");

    for (garbage, seconds) in
        [(REQUEST, 0), (b"\x16\x03\x01\x00\xf0\x01\x00\x00\xec\x03\x03\x00", 0), (b"PROXY TCP4 2", 5), (b"", 5)]
    {
        let (mut client, ended) = house.connect();
        client.write_all(garbage).await.expect("taken");
        assert_eq!(end(ended).await, (seconds, Ended::ProxyProtocol), "{garbage:?}");
    }
}

#[tokio::test]
async fn a_proxy_header_of_a_stranger_closes_the_connection_and_an_announced_client_has_a_bound() {
    let trusted = vec!["10.0.0.0/8".parse().expect("a network")];
    let connections = Connections::new(ConnectionLimits { trusted_proxies: trusted, ..limits() }, |_| {});
    let behind = Entrance { proxy_protocol: true, ..Entrance::default() };
    let peer = |text: &str| Some(text.parse().expect("an address"));
    let refused = connections.admit(peer("203.0.113.9"), &behind).map(drop);
    assert_eq!(refused, Err(Told::Ended(Ended::ProxyProtocol)));
    // A quarter of 100 for each client, as many as there are for a proxy.
    let mut guests: Vec<_> =
        (0..30).map(|_| connections.admit(peer("10.0.0.1"), &behind).expect("a proxy has no bound")).collect();
    let of = |text: &str| Announced::Client(text.parse().expect("an address"));
    let stays = guests.iter_mut().filter_map(|guest| guest.announce(of("203.0.113.7")).then_some(())).count();
    assert_eq!(stays, 25);
    assert!(guests[29].announce(of("203.0.113.8")) && guests[29].announce(of("10.0.0.2")));
    let plain = Entrance::default();
    let direct: Vec<_> = (0..30).map(|_| connections.admit(peer("198.51.100.1"), &plain).map_err(drop)).collect();
    assert_eq!(direct.iter().filter(|guest| guest.is_ok()).count(), 25);
}

#[tokio::test]
async fn whom_a_proxy_on_a_unix_socket_announces_speaks_for_nobody_else() {
    let behind = Entrance { proxy_protocol: true, ..Entrance::default() };
    let mut headers = http::HeaderMap::new();
    headers.insert("x-forwarded-for", HeaderValue::from_static("198.51.100.1"));
    let address = |text: &str| Some(text.parse().expect("an address"));
    for (announced, client) in [
        (Announced::Proxy, address("198.51.100.1")),
        (Announced::Client("203.0.113.7".parse().expect("an address")), address("203.0.113.7")),
        (Announced::Unix, None),
    ] {
        let mut guest = Connections::new(limits(), |_| {}).admit(None, &behind).expect("there is room");
        assert!(guest.announce(announced));
        assert_eq!(crate::http::forwarded::client(&guest.connected, &headers, &[]), client, "{announced:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_places_are_taken_probes_are_answered_and_nobody_else() {
    let house = House::new(ConnectionLimits { connections_max: 1, ..limits() });
    let (_held, _) = house.connect();
    for (path, status) in [("/livez", "200 OK"), ("/readyz", "200 OK"), ("/healthz", "200 OK"), ("/a", "503 ")] {
        let (mut client, ended) = house.connect();
        client.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.expect("taken");
        let answer = read_answer(&mut client).await;
        assert!(answer.contains(status) && answer.contains("connection: close"), "{path}: {answer}");
        drop(client);
        assert_eq!(end(ended).await.1, Ended::Crowded);
    }
    let (mut client, _ended) = house.http2().await;
    client.send(&get(1, &[])).await;
    assert_eq!(client.outcome(1).await, Got::Status(503));
    // Neither silence nor a slow body holds such a place.
    let (silent, ended) = house.connect();
    assert_eq!(end(ended).await, (2, Ended::Crowded));
    drop(silent);
    let (mut slow, ended) = house.connect();
    slow.write_all(b"POST /livez HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n").await.expect("taken");
    assert_eq!(end(ended).await, (2, Ended::Crowded));
    drop(client);
    let peer = |last: u8| Some(std::net::IpAddr::from([203, 0, 113, last]));
    let admitted: Vec<_> = (0..6).map(|_| house.connections.admit(peer(1), &house.entrance)).collect();
    assert_eq!(admitted.iter().filter(|guest| guest.is_ok()).count(), 4, "a few for each client");
    drop(admitted);
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_answered_at_once_while_a_crowd_holds_the_places_for_probes() {
    const PROBE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    for h2c in [true, false] {
        let mut house = House::new(ConnectionLimits { connections_max: 1, ..limits() });
        house.entrance.h2c = h2c;
        let (_held, held_ended) = house.connect();
        let began = Instant::now();
        let (mut clients, mut crowd): (Vec<_>, Vec<_>) = (0..16).map(|_| house.connect()).unzip();
        // Some have begun a head, and do not go on.
        for client in &mut clients[..4] {
            client.write_all(b"GET /healthz").await.expect("taken");
        }
        let (mut probe, _ended) = house.connect();
        probe.write_all(PROBE).await.expect("taken");
        let answer = read_answer(&mut probe).await;
        assert!(answer.contains("200 OK") && answer.contains("/healthz"), "{answer}");
        assert_eq!(end(crowd.remove(0)).await, (0, Ended::Crowded), "the oldest made room");
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(!held_ended.is_finished() && !crowd.iter().any(JoinHandle::is_finished), "and nobody else");

        // The same where a whole crowd came behind the probe before anything was read.
        let (mut probe, server) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
        std::io::Write::write_all(&mut probe, PROBE).expect("it fits");
        for end in [&probe, &server] {
            end.set_nonblocking(true).expect("a socket");
        }
        let mut probe = UnixStream::from_std(probe).expect("a socket");
        let guest = house.connections.admit(None, &house.entrance).expect("a place");
        let _crowd: Vec<_> = (0..16).map(|_| house.connect()).collect();
        let ended = house.serve(UnixStream::from_std(server).expect("a socket"), guest);
        assert!(read_answer(&mut probe).await.contains("200 OK"));
        assert_eq!(end(ended).await, (0, Ended::Crowded));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_has_too_many_of_the_places_for_probes_displaces_nobody() {
    let house = House::new(ConnectionLimits { connections_max: 1, ..limits() });
    let (_held, _) = house.connect();
    let (_clients, crowd): (Vec<_>, Vec<_>) = (0..12).map(|_| house.connect()).unzip();
    let admit = |last: u8| house.connections.admit(Some([203, 0, 113, last].into()), &house.entrance);
    let _four: Vec<_> = (0..4).map(|_| admit(1).expect("a few for each client")).collect();
    for _ in 0..100 {
        assert_eq!(admit(1).map(drop), Err(Told::Refused));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!crowd.iter().any(JoinHandle::is_finished));
    let _another = admit(2).expect("another client");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(crowd.iter().filter(|ended| ended.is_finished()).count(), 1);

    // Those that went left their places.
    let house = House::new(ConnectionLimits { connections_max: 1, ..limits() });
    let (_held, _) = house.connect();
    let (_oldest, oldest_ended) = house.connect();
    drop((0..15).map(|_| house.connections.admit(None, &house.entrance).expect("a place")).collect::<Vec<_>>());
    let _newcomer = house.connect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!oldest_ended.is_finished());
}
