//! The processes that are measured: the gateway and nginx. Each is ended when its value is dropped.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;

use crate::driver::listens;

/// `hookward serve` with a configuration and a store of its own.
pub(crate) struct Gateway {
    /// Of the public listener.
    pub(crate) address: SocketAddr,
    child: Child,
    _directory: TempDir,
}

impl Gateway {
    /// The path of its one source.
    pub(crate) const PATH: &str = "/hooks/bench";

    pub(crate) fn start(binary: &Path, directory: TempDir, config: &str) -> Result<Self> {
        let file = directory.path().join("hookward.toml");
        fs::write(&file, config).context("failed to write the configuration")?;
        let mut child = Command::new(binary)
            .arg("serve")
            .arg("-c")
            .arg(&file)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to run {}", binary.display()))?;
        let log = child.stderr.take().expect("it is piped");
        let (tell, told) = mpsc::channel();
        thread::spawn(move || follow(log, &tell));
        let told = told.recv_timeout(Duration::from_secs(30));
        // Made before the address is looked at, so that the process ends whatever comes.
        let mut gateway = Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), child, _directory: directory };
        gateway.address = told.context("it did not say that it listens")??;
        Ok(gateway)
    }

    pub(crate) fn used(&self) -> Result<Used> {
        used(self.child.id())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Its store goes with it, so there is nothing to drain.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log, tells the public address once, and goes on reading, so that the pipe never fills up.
fn follow(log: ChildStderr, tell: &mpsc::Sender<Result<SocketAddr>>) {
    let mut last = VecDeque::with_capacity(20);
    let (mut log, mut line) = (BufReader::new(log), String::new());
    let address = loop {
        line.clear();
        if !log.read_line(&mut line).is_ok_and(|n| n > 0) {
            break Err(anyhow!("it ended:\n{}", Vec::from(last).concat()));
        }
        if let Some(address) = public_address(&line) {
            break Ok(address);
        }
        if last.len() == 20 {
            last.pop_front();
        }
        last.push_back(line.clone());
    };
    let _ = tell.send(address);
    let mut rest = vec![0; 64 * 1024];
    while log.read(&mut rest).is_ok_and(|n| n > 0) {}
}

/// The address in `{"fields":{"message":"listening","listener":"public","address":"127.0.0.1:4242"}}`, nested or flat.
fn public_address(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    let field = |name: &str| fields.get(name)?.as_str();
    (field("message")? == "listening" && field("listener")? == "public").then(|| field("address")?.parse().ok())?
}

/// A plain proxy: two workers, kept connections on both sides, and its access log as it comes.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    binary: PathBuf,
    config: PathBuf,
    child: Child,
    _directory: TempDir,
}

impl Nginx {
    /// `None` where it is not installed.
    pub(crate) async fn start(upstream: SocketAddr, connections: u16) -> Result<Option<Self>> {
        let Some(binary) = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"]
            .map(PathBuf::from)
            .into_iter()
            .find(|p| p.exists())
        else {
            return Ok(None);
        };
        // The port is free when it is chosen; should somebody else take it before nginx does, another is.
        for _ in 0..5 {
            if let Some(nginx) = Self::try_start(&binary, upstream, connections).await? {
                return Ok(Some(nginx));
            }
        }
        bail!("nginx does not start")
    }

    async fn try_start(binary: &Path, upstream: SocketAddr, connections: u16) -> Result<Option<Self>> {
        let address = TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr()).context("no free port")?;
        let directory = tempfile::tempdir().context("failed to make a directory for nginx")?;
        let config = directory.path().join("nginx.conf");
        fs::write(&config, nginx_config(directory.path(), address, upstream, connections)?)
            .context("failed to write nginx's configuration")?;
        let child = Command::new(binary)
            .arg("-c")
            .arg(&config)
            .arg("-p")
            .arg(directory.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to run nginx")?;
        let mut nginx = Self { address, binary: binary.to_owned(), config, child, _directory: directory };
        for _ in 0..200 {
            if listens(address).await.is_ok() {
                return Ok(Some(nginx));
            }
            if nginx.child.try_wait().context("failed to look at nginx")?.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(None)
    }

    /// Of the master and its workers together; pages that they share count several times.
    pub(crate) fn used(&self) -> Result<Used> {
        let master = self.child.id();
        let workers = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).context("nginx is gone")?;
        let mut sum = used(master)?;
        for worker in workers.split_whitespace() {
            let worker = used(worker.parse().context("a process has a number")?)?;
            sum.memory_peak_kib += worker.memory_peak_kib;
            sum.cpu += worker.cpu;
        }
        Ok(sum)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Killing the master would leave its workers behind.
        let stop =
            Command::new(&self.binary).arg("-c").arg(&self.config).args(["-s", "stop"]).stderr(Stdio::null()).status();
        if !stop.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn nginx_config(directory: &Path, listen: SocketAddr, upstream: SocketAddr, connections: u16) -> Result<String> {
    // Started by root, the workers would become another user, who may not enter the directory.
    let root = fs::metadata("/proc/self").context("failed to learn the user")?.uid() == 0;
    let user = if root { "user root;" } else { "" };
    let at = directory.display();
    Ok(format!(
        r#"
daemon off;
{user}
worker_processes 2;
pid {at}/nginx.pid;
error_log {at}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log {at}/access.log;
    client_body_temp_path {at}/body;
    proxy_temp_path {at}/proxy;
    fastcgi_temp_path {at}/fastcgi;
    uwsgi_temp_path {at}/uwsgi;
    scgi_temp_path {at}/scgi;
    keepalive_requests 1000000000;
    upstream sink {{
        server {upstream};
        keepalive {connections};
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://sink;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"#
    ))
}

/// What a process has used so far.
#[derive(Clone, Copy)]
pub(crate) struct Used {
    pub(crate) memory_peak_kib: u64,
    /// Of all its threads, in the kernel too.
    pub(crate) cpu: Duration,
}

fn used(process: u32) -> Result<Used> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).context("the process is gone");
    let status = read("status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    let stat = read("stat")?;
    // The name of the process may have spaces in it, what follows it has none; user and system time are 14 and 15.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = ticks(14).zip(ticks(15)).map(|(user, system)| user + system);
    Ok(Used {
        memory_peak_kib: peak.context("the kernel does not tell VmHWM")?,
        // Linux tells user space hundredths of a second, whatever it counts itself.
        cpu: Duration::from_millis(10 * ticks.context("the kernel does not tell processor time")?),
    })
}
