//! Sockets: bound, or handed over by a service manager; and the streams that come from them.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, SocketAddr},
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream},
};

use super::passed::PassedSocket;
use crate::config::model::ListenAt;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// What a Unix socket's address holds, in bytes, less the zero at its end.
const PATH_BYTES_MAX: usize = 107;
/// Whoever may write to a Unix socket may speak for anybody: its owner and its group.
const UNIX_MODE: u32 = 0o660;

/// A socket that listens.
#[derive(Debug)]
pub struct Socket {
    // Before the listener: while that is open, the number of its file is nobody else's.
    owner: Owner,
    listener: Listening,
    /// How many connections of the queue were accepted to close it.
    waited: AtomicUsize,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Who made a socket, and has to think of what waits in its queue.
#[derive(Debug)]
enum Owner {
    /// This process; with its file, if it is a Unix socket.
    Us(Option<SocketFile>),
    /// A service manager, which keeps it open for the next process.
    Manager,
}

/// One connection, before anything was read from it.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Binds it. A Unix socket that nobody listens on any more is replaced. What a service manager passes has to be
    /// given to [`Socket::of`].
    pub async fn open(at: &ListenAt) -> io::Result<Self> {
        let (listener, file) = match at {
            ListenAt::Tcp(address) => (Listening::Tcp(bind_tcp(*address)?), None),
            ListenAt::Unix(path) => {
                let (listener, file) = bind_unix(path).await?;
                (Listening::Unix(listener), Some(file))
            }
            ListenAt::Systemd(_) => return Err(io::Error::other("no socket was passed to this process")),
        };
        Ok(Self { owner: Owner::Us(file), listener, waited: AtomicUsize::new(0) })
    }

    /// Takes over what a service manager has made.
    pub fn of(passed: PassedSocket) -> io::Result<Self> {
        let listener = match passed {
            PassedSocket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Listening::Tcp(TcpListener::from_std(listener)?)
            }
            PassedSocket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Listening::Unix(UnixListener::from_std(listener)?)
            }
            PassedSocket::Other(_) => return Err(io::Error::other("it is no stream socket")),
        };
        Ok(Self { owner: Owner::Manager, listener, waited: AtomicUsize::new(0) })
    }

    /// Whether it is a service manager's, and outlives this process.
    pub fn is_passed(&self) -> bool {
        matches!(self.owner, Owner::Manager)
    }

    /// The next connection, and the address of its peer; a Unix socket has none.
    pub async fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        Ok(match &self.listener {
            Listening::Tcp(listener) => of_tcp(listener.accept().await?),
            Listening::Unix(listener) => (Stream::Unix(listener.accept().await?.0), None),
        })
    }

    /// For a listener that is about to close: the next connection that waits in the queue, whose client takes it for
    /// accepted, and which closing would reset. `None` once there are no more, or when the queue is the service
    /// manager's: they wait for the next process. As many at most as a queue holds, so that a flood does not keep a
    /// listener open.
    pub fn accept_waiting(&self) -> Option<(Stream, Option<IpAddr>)> {
        let Owner::Us(file) = &self.owner else { return None };
        if let Some(file) = file {
            file.remove();
        }
        // The runtime may not have been told yet of what the kernel has: a second handle asks the kernel.
        while self.waited.fetch_add(1, Relaxed) <= BACKLOG as usize {
            let accepted = match &self.listener {
                Listening::Tcp(listener) => {
                    let twin = std::net::TcpListener::from(listener.as_fd().try_clone_to_owned().ok()?);
                    twin.accept().and_then(|(stream, peer)| {
                        stream.set_nonblocking(true)?;
                        Ok(of_tcp((TcpStream::from_std(stream)?, peer)))
                    })
                }
                Listening::Unix(listener) => {
                    let twin = std::os::unix::net::UnixListener::from(listener.as_fd().try_clone_to_owned().ok()?);
                    twin.accept().and_then(|(stream, _)| {
                        stream.set_nonblocking(true)?;
                        Ok((Stream::Unix(UnixStream::from_std(stream)?), None))
                    })
                }
            };
            match accepted {
                Ok(accepted) => return Some(accepted),
                // This one left while it waited; there may be others.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// Where it listens, as a person would write it; with the real port.
    pub fn local(&self) -> ListenAt {
        match &self.listener {
            Listening::Tcp(listener) => ListenAt::Tcp(listener.local_addr().expect("a bound socket has an address")),
            Listening::Unix(listener) => {
                let path = listener.local_addr().ok().and_then(|address| Some(address.as_pathname()?.to_owned()));
                ListenAt::Unix(path.unwrap_or_default())
            }
        }
    }
}

fn of_tcp((stream, peer): (TcpStream, SocketAddr)) -> (Stream, Option<IpAddr>) {
    let _ = stream.set_nodelay(true);
    (Stream::Tcp(stream), Some(peer.ip().to_canonical()))
}

/// The file of a Unix socket that this process made. Removed when dropped, if it is still that one.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and number.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: Self::identity(path)? })
    }

    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
    }

    fn remove(&self) {
        if Self::identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// As the library binds it, but for its queue, which is short there.
fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // What the last process left in TIME-WAIT is no reason to wait. It shares the port with nobody.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let length = path.as_os_str().len();
    if length > PATH_BYTES_MAX {
        let why = format!("the path has {length} bytes and that of a socket {PATH_BYTES_MAX} at most");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    // Until it listens: another process that starts at the same moment would take it for one that nobody listens on.
    let _directory = locked_directory(path).await?;
    remove_left_over(path).await?;
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let file = SocketFile::of(path)?;
    // Before it listens, so that nobody connects who may not.
    fs::set_permissions(path, fs::Permissions::from_mode(UNIX_MODE))?;
    Ok((socket.listen(BACKLOG)?, file))
}

async fn locked_directory(path: &Path) -> io::Result<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = parent.to_owned();
    let lock = move || {
        let directory = File::open(parent)?;
        directory.lock()?;
        Ok(directory)
    };
    tokio::task::spawn_blocking(lock).await.map_err(io::Error::other)?
}

/// Removes the socket of a process that ended without doing so.
async fn remove_left_over(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Nobody listens, or it is no socket at all.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            if fs::symlink_metadata(path)?.file_type().is_socket() {
                return fs::remove_file(path);
            }
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket stands there"))
        }
        // So many wait there that no more can.
        Ok(_) | Err(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    const LOOPBACK: &str = "127.0.0.1:0";

    fn tcp(at: &ListenAt) -> SocketAddr {
        at.tcp().expect("an address")
    }

    #[tokio::test]
    async fn what_the_kernel_accepted_is_taken_before_a_socket_of_ours_closes() {
        let socket = Socket::open(&ListenAt::Tcp(LOOPBACK.parse().expect("an address"))).await.expect("a free port");
        let at = tcp(&socket.local());
        let clients: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(at).expect("it listens")).collect();
        let accepted: Vec<_> = std::iter::from_fn(|| socket.accept_waiting()).collect();
        let local = clients.iter().map(|client| client.local_addr().expect("connected").ip()).collect::<Vec<_>>();
        assert_eq!(accepted.iter().filter_map(|(_, peer)| *peer).collect::<Vec<_>>(), local);
    }

    #[tokio::test]
    async fn what_waits_at_a_passed_socket_is_left_to_the_next_process() {
        let manager = std::net::TcpListener::bind(LOOPBACK).expect("a free port");
        let passed = PassedSocket::Tcp(manager.try_clone().expect("a second handle"));
        let socket = Socket::of(passed).expect("it is a socket");
        let mut client = std::net::TcpStream::connect(tcp(&socket.local())).expect("it listens");
        client.write_all(b"still here").expect("it is connected");
        assert!(socket.accept_waiting().is_none());
        drop(socket);
        let next = Socket::of(PassedSocket::Tcp(manager)).expect("it is a socket");
        let (stream, _) = next.accept().await.expect("it waits");
        let Stream::Tcp(stream) = stream else { panic!("it is TCP") };
        let mut stream = stream.into_std().expect("it is open");
        stream.set_nonblocking(false).expect("it is open");
        let mut said = [0; 10];
        stream.read_exact(&mut said).expect("it was not reset");
        assert_eq!(&said, b"still here");
    }

    fn unix(directory: &tempfile::TempDir) -> (PathBuf, ListenAt) {
        let path = directory.path().join("hookward.sock");
        (path.clone(), ListenAt::Unix(path))
    }

    #[tokio::test]
    async fn a_unix_socket_is_for_owner_and_group_and_its_file_goes_with_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, at) = unix(&directory);
        let socket = Socket::open(&at).await.expect("nobody is there");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, UNIX_MODE);
        assert_eq!(socket.local(), at);
        let _client = std::os::unix::net::UnixStream::connect(&path).expect("it listens");
        assert!(socket.accept_waiting().is_some());
        assert!(!path.exists(), "nobody new connects to what is about to close");
        assert!(socket.accept_waiting().is_none());
    }

    #[tokio::test]
    async fn one_that_nobody_listens_on_is_replaced_and_one_in_use_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, at) = unix(&directory);
        drop(std::os::unix::net::UnixListener::bind(&path).expect("nobody is there"));
        assert!(path.exists(), "it is left over");
        let socket = Socket::open(&at).await.expect("nobody listens");
        let error = Socket::open(&at).await.expect_err("somebody listens");
        assert!(error.to_string().contains("another process listens there"), "{error}");
        drop(socket);
        assert!(!path.exists());
        fs::write(&path, "a note").expect("there is room");
        let error = Socket::open(&at).await.expect_err("it is a file");
        assert!(error.to_string().contains("no socket"), "{error}");
        assert_eq!(fs::read(&path).expect("it is there"), b"a note");
    }

    #[tokio::test]
    async fn a_file_that_took_the_place_of_ours_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, at) = unix(&directory);
        let socket = Socket::open(&at).await.expect("nobody is there");
        fs::remove_file(&path).expect("it is there");
        let _other = std::os::unix::net::UnixListener::bind(&path).expect("the place is free");
        drop(socket);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_says_so() {
        let long = PathBuf::from("/tmp").join("x".repeat(PATH_BYTES_MAX));
        let error = Socket::open(&ListenAt::Unix(long)).await.expect_err("it is too long");
        assert!(error.to_string().contains("the path has 112 bytes and that of a socket 107 at most"), "{error}");
    }
}
