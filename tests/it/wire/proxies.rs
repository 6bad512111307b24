//! nginx, HAProxy and Apache as Debian has them, each as one process that passes everything on.

use std::{
    fmt, fs,
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::{running::pause, world::within};

/// Which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Nginx,
    HaProxy,
    Apache,
}

impl Kind {
    fn binary(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
            Self::Apache => "apache2",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.binary())
    }
}

/// How it passes on what it gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// Each request on a connection of its own, in HTTP/1.0 where the proxy knows how: nginx unless told otherwise.
    Single,
    /// The whole request first, where the proxy can, on connections that are kept.
    Buffered,
    /// Bytes as they come, on connections that are kept.
    Streamed,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Single, Self::Buffered, Self::Streamed];
}

/// A proxy that runs.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    child: Child,
    _directory: TempDir,
}

impl Proxy {
    /// One that passes everything on to `to`. `None` where it is not installed, which is said; where everything has to be
    /// there it is a failure.
    pub(super) async fn start(kind: Kind, to: SocketAddr, way: Way) -> Option<Self> {
        let places = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
        let Some(binary) = places.map(|place| Path::new(place).join(kind.binary())).into_iter().find(|p| p.exists())
        else {
            assert!(std::env::var_os("CI").is_none(), "{kind} is not installed");
            // Past the capture of the test harness, so that it shows.
            writeln!(std::io::stderr(), "skipped: {kind} is not installed").expect("stderr is there");
            return None;
        };
        let directory = tempfile::tempdir().expect("a directory");
        // Apache becomes another user, who has to get in.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let address = own_address().await;
        let config = directory.path().join("proxy.conf");
        let at = directory.path().display().to_string();
        let mut command = Command::new(binary);
        let text = match kind {
            Kind::Nginx => {
                command.args(["-e", &format!("{at}/error.log"), "-p", &at, "-c"]).arg(&config);
                nginx(address, to, way)
            }
            Kind::HaProxy => {
                command.args(["-db", "-f"]).arg(&config);
                haproxy(address, to, way)
            }
            Kind::Apache => {
                command.args(["-X", "-d", &at, "-f"]).arg(&config);
                apache(address, to, &at, way)
            }
        };
        fs::write(&config, text).expect("written");
        let log = fs::File::create(directory.path().join("output")).expect("created");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
        let mut child = command.spawn().expect("it can be started");
        within("the proxy to listen", async {
            while TcpStream::connect(address).await.is_err() {
                if let Some(status) = child.try_wait().expect("it was started here") {
                    let read = |name| fs::read_to_string(directory.path().join(name)).unwrap_or_default();
                    panic!("{kind} ended with {status}:\n{}{}", read("output"), read("error.log"));
                }
                pause().await;
            }
        })
        .await;
        Some(Self { address, child, _directory: directory })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It is one process, without children.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A free port of a loopback address that no other process uses: nobody takes it before the proxy does.
async fn own_address() -> SocketAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let listener = TcpListener::bind(SocketAddr::from(([127, 64 | high, middle, low], 0))).await.expect("loopback");
    listener.local_addr().expect("an address")
}

fn nginx(listen: SocketAddr, to: SocketAddr, way: Way) -> String {
    let kept = "proxy_http_version 1.1; proxy_set_header Connection \"\";";
    let way = match way {
        Way::Single => String::new(),
        Way::Buffered => kept.to_owned(),
        Way::Streamed => format!("{kept} proxy_request_buffering off;"),
    };
    format!(
        "daemon off; master_process off; pid nginx.pid; error_log error.log warn;
         events {{ worker_connections 512; }}
         http {{
           access_log off;
           client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
           client_header_timeout 1s; client_body_timeout 1s; client_max_body_size 0;
           large_client_header_buffers 4 64k;
           upstream up {{ server {to}; keepalive 8; }}
           server {{
             listen {listen};
             location / {{
               proxy_pass http://up;
               proxy_set_header Host $http_host; proxy_ignore_client_abort on; proxy_next_upstream off;
               {way}
             }}
           }}
         }}\n"
    )
}

fn haproxy(listen: SocketAddr, to: SocketAddr, way: Way) -> String {
    let way = match way {
        Way::Single => "option http-server-close",
        Way::Buffered => "option http-buffer-request\n http-reuse always",
        Way::Streamed => "http-reuse always",
    };
    format!(
        "global\n nbthread 1\n tune.bufsize 65536\n tune.http.maxhdr 300\n\
         defaults\n mode http\n {way}\n timeout connect 5s\n timeout client 1s\n timeout server 20s\n \
         timeout http-request 1s\n timeout http-keep-alive 5s\n\
         frontend in\n bind {listen}\n default_backend out\n\
         backend out\n server one {to}\n"
    )
}

fn apache(listen: SocketAddr, to: SocketAddr, directory: &str, way: Way) -> String {
    let modules = "/usr/lib/apache2/modules";
    let way = match way {
        Way::Single => "SetEnv force-proxy-request-1.0 1\nSetEnv proxy-nokeepalive 1",
        Way::Buffered => "SetEnv proxy-sendcl 1",
        Way::Streamed => "SetEnv proxy-sendchunked 1",
    };
    format!(
        "ServerName proxy.example\nListen {listen}\nPidFile {directory}/pid\nDefaultRuntimeDir {directory}\n\
         ErrorLog {directory}/error.log\nLogLevel warn\nMutex sem\nUser nobody\nGroup nogroup\n\
         LoadModule mpm_event_module {modules}/mod_mpm_event.so\n\
         LoadModule authz_core_module {modules}/mod_authz_core.so\n\
         LoadModule env_module {modules}/mod_env.so\n\
         LoadModule reqtimeout_module {modules}/mod_reqtimeout.so\n\
         LoadModule proxy_module {modules}/mod_proxy.so\n\
         LoadModule proxy_http_module {modules}/mod_proxy_http.so\n\
         Timeout 20\nRequestReadTimeout header=1 body=1,MinRate=500000\nLimitRequestFields 300\nLimitRequestFieldSize 65536\n\
         LimitRequestLine 65536\nAllowEncodedSlashes NoDecode\nProxyPreserveHost On\n{way}\n\
         ProxyPass / http://{to}/ nocanon\n"
    )
}
