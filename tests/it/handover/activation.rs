//! Sockets that are passed, and Unix sockets.

use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::{
    running::{pause, run},
    world::Act,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_connects_while_no_process_is_there_is_answered_by_the_next_one() {
    let site = Site::new().await;
    let file = site.configured("listen = \"systemd:web\"\ndrain_delay = \"0s\"");
    let (socket, at) = held_socket();
    let process = site.start(passed(&socket), &file);
    assert_eq!(listens(&process, "public"), at.to_string(), "the log names the address of the socket");
    listens(&process, "admin");
    assert_eq!(send(at, "{\"n\":1}").await.status, 200);
    let (code, _, log) = process.end("TERM");
    assert_eq!(code, Some(0), "{log}");

    let mut early = connected(at).await;
    early.write_all(&webhook("{\"n\":2}")).await.expect("the kernel has it");
    let process = site.start(passed(&socket), &file);
    let reply = reply_on(&mut early).await;
    assert_eq!((reply.status, reply.ack().0.as_str()), (200, "accepted"));
    listens(&process, "admin");
    site.upstream.wait_for(2).await;
    assert_eq!(process.end("TERM").0, Some(0));
    assert_eq!(site.received(), ["{\"n\":1}", "{\"n\":2}"]);
}

/// A process that was told to end while the attempt of its first event hangs, and that still accepts; its socket, and the
/// address of that.
async fn draining_beside_an_attempt(site: &Site, file: &Path) -> (Running, TcpListener, SocketAddr) {
    let (socket, at) = held_socket();
    let process = site.start(passed(&socket), file);
    listens(&process, "admin");
    site.upstream.script([Act::Hang(200)]);
    assert_eq!(send(at, "{\"n\":0}").await.status, 200);
    site.upstream.wait_for(1).await;
    process.signal("TERM");
    process.line_with("attempts end");
    (process, socket, at)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_takes_its_time_keeps_nobody_waiting_for_the_next_process() {
    let site = Site::new().await;
    let file = site.configured("listen = \"systemd\"\ndrain_delay = \"0s\"");
    let (process, socket, at) = draining_beside_an_attempt(&site, &file).await;
    for n in 1..6 {
        assert_eq!(send(at, &format!("{{\"n\":{n}}}")).await.status, 200, "the attempt still hangs");
        pause().await;
    }
    assert_eq!(site.upstream.received().len(), 1, "the next process delivers them");
    site.upstream.let_go();
    let (code, _, log) = process.ended();
    assert_eq!(code, Some(0), "{log}");
    let process = site.start(passed(&socket), &file);
    listens(&process, "admin");
    site.upstream.wait_for(6).await;
    assert_eq!(process.end("TERM").0, Some(0));
    assert_eq!(site.received(), [0, 1, 2, 3, 4, 5].map(|n| format!("{{\"n\":{n}}}")));
}

#[tokio::test]
async fn sockets_and_configuration_that_do_not_fit_are_told_apart() {
    let site = Site::new().await;
    let (socket, at) = held_socket();
    let refused = |command: Command, listen: &str| {
        let file = site.configured(&format!("listen = {listen}"));
        let mut command = command;
        let output = run(command.args(["serve", "-c"]).arg(file).current_dir(site.path()));
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    };
    let named = refused(passed(&socket), "\"systemd:public\"");
    assert!(named.contains(&format!("passed was \"web\" ({at})")) && named.contains("systemd:public"), "{named}");
    let unused = refused(passed(&socket), "\"127.0.0.1:0\"");
    assert!(unused.contains(&format!("the socket \"web\" ({at}) was passed and nobody would answer")), "{unused}");
    let twice = refused(passed(&socket), "[\"systemd\", \"systemd\"]");
    assert!(twice.contains("no socket is left"), "{twice}");
    let none = refused(hookward(), "\"systemd\"");
    assert!(none.contains("passed was none"), "{none}");
    let mut other = hookward();
    other.envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "1")]);
    let other = refused(other, "\"systemd\"");
    assert!(other.contains("for another process"), "{other}");
    let file = std::fs::File::open(site.path().join("hookward.toml")).expect("it is there");
    let no_socket = refused(with_socket(file, ""), "\"systemd\"");
    assert!(no_socket.contains("file descriptor 3") && no_socket.contains("no stream socket"), "{no_socket}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_that_a_kill_left_over_is_replaced_and_a_drain_removes_it() {
    let site = Site::new().await;
    let file = site.configured("listen = \"unix:hookward.sock\"\ndrain_delay = \"0s\"");
    let path = site.path().join("hookward.sock");
    let process = site.start(hookward(), &file);
    assert_eq!(listens(&process, "public"), format!("unix:{}", path.display()));
    listens(&process, "admin");
    process.end("KILL");
    assert!(path.exists(), "nobody removed it");

    let process = site.start(hookward(), &file);
    listens(&process, "admin");
    let mut stream = tokio::net::UnixStream::connect(&path).await.expect("it listens");
    stream.write_all(&webhook("{}")).await.expect("it is open");
    assert_eq!(within("an answer", read_reply(&mut stream)).await.status, 200);

    let second = run(hookward().args(["serve", "-c"]).arg(&file).current_dir(site.path()));
    let second = String::from_utf8(second.stderr).expect("text");
    assert!(second.contains("another process listens there"), "{second}");
    let (code, _, log) = process.end("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert!(!path.exists(), "it is gone with its process");
}

/// As systemd itself passes them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_sockets_are_told_apart_by_their_names() {
    let site = Site::new().await;
    let file = site.configured("listen = [\"systemd:second\", \"systemd\"]\ndrain_delay = \"0s\"");
    let paths = ["first", "second"].map(|name| site.path().join(name));
    let [first, second] = paths.each_ref().map(|path| path.to_str().expect("text"));
    let arguments = ["-l", first, "-l", second, "--fdname=first:second"];
    let process = site.start(hookward_under("systemd-socket-activate", &arguments), &file);
    for path in [first, second] {
        process.line_with(&format!("Listening on {path} "));
    }
    // The first connection has it start the program, which answers it.
    for path in [first, second] {
        let mut stream = tokio::net::UnixStream::connect(path).await.expect("it listens");
        stream.write_all(&webhook(&format!("{{\"path\":\"{path}\"}}"))).await.expect("it is open");
        assert_eq!(within("an answer", read_reply(&mut stream)).await.status, 200, "{path}");
    }
    for path in [second, first] {
        assert_eq!(listens(&process, "public"), format!("unix:{path}"), "in the order of the configuration");
    }
    assert_eq!(process.end("TERM").0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_can_be_passed_and_its_file_stays() {
    let site = Site::new().await;
    let file = site.configured("listen = \"systemd\"\ndrain_delay = \"0s\"");
    let path = site.path().join("passed.sock");
    let socket = UnixListener::bind(&path).expect("nobody is there");
    let process = site.start(with_socket(socket, "web"), &file);
    assert_eq!(listens(&process, "public"), format!("unix:{}", path.display()));
    listens(&process, "admin");
    let mut stream = tokio::net::UnixStream::connect(&path).await.expect("it listens");
    stream.write_all(&webhook("{}")).await.expect("it is open");
    assert_eq!(within("an answer", read_reply(&mut stream)).await.status, 200);
    assert_eq!(process.end("TERM").0, Some(0));
    assert!(path.exists(), "it is the service manager's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxied_webhooks_are_answered_while_attempts_of_others_end() {
    const SECRET: &str = "another-secret-of-length";
    let site = Site::new().await;
    let file = site.configured("listen = \"systemd\"\ndrain_delay = \"0s\"");
    let proxied = format!(
        "[sources.proxied]\nprovider = \"partssource\"\nsecrets = [{{ value = \"{SECRET}\" }}]\nmode = \"proxy\"\n\
         upstream = \"{}\"\n",
        site.upstream.url()
    );
    let text = std::fs::read_to_string(&file).expect("it is there");
    std::fs::write(&file, text + &proxied).expect("written");
    let (process, _socket, at) = draining_beside_an_attempt(&site, &file).await;
    for n in 1..20 {
        let body = format!("{{\"n\":{n}}}");
        let mut text = format!("POST /hooks/proxied HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in sign("partssource", SECRET, body.as_bytes(), Clock::system().wall().unix_s()) {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let answer = crate::world::raw(at, format!("{text}\r\n{body}").as_bytes()).await;
        assert_eq!(answer.status, 200, "{n}");
    }
    site.upstream.let_go();
    let (code, _, log) = process.ended();
    assert_eq!(code, Some(0), "{log}");
}
