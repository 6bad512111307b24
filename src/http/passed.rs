//! Sockets that a service manager made and passed to this process, as systemd does ("socket activation").
//!
//! Such a socket outlives the process: while one ends and the next one starts, connections wait in its queue, and none
//! is refused.

use std::{env, fmt, net::TcpListener, os::unix::net::UnixListener};

use listenfd::ListenFd;

use crate::config::model::ListenAt;

/// More than any configuration takes; a bound.
const PASSED_MAX: usize = 256;
/// The name of a socket whose manager gave it none.
const UNNAMED: &str = "unknown";

/// What was passed, and nobody took yet.
#[derive(Debug, Default)]
pub struct Passed {
    sockets: Vec<Named>,
    /// Why nothing is here, if something was passed all the same.
    why_none: Option<String>,
}

#[derive(Debug)]
struct Named {
    name: String,
    socket: PassedSocket,
}

/// A listening socket of a service manager.
#[derive(Debug)]
pub enum PassedSocket {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix stream socket.
    Unix(UnixListener),
    /// Neither; the number of its file descriptor.
    Other(usize),
}

/// Passed and configured sockets do not fit. A lower-case fragment that says what was passed and what to write.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PassedError(String);

impl Passed {
    /// Takes what the environment tells of, once. For the time before there is a second thread: it takes `LISTEN_FDS`
    /// and `LISTEN_PID` out of the environment.
    pub fn take() -> Self {
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
        let (Some(count), owner) = (number("LISTEN_FDS"), number("LISTEN_PID")) else { return Self::default() };
        let none = |why: String| Self { sockets: Vec::new(), why_none: Some(why) };
        let own = std::process::id();
        if owner.is_some_and(|owner| u32::try_from(owner) != Ok(own)) {
            return none(format!("what was passed is for another process: LISTEN_PID is not {own}"));
        }
        if count > PASSED_MAX {
            return none(format!("LISTEN_FDS is {count}, and {PASSED_MAX} is the most"));
        }
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let sockets = (0..passed.len()).map(|index| {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or(UNNAMED).to_owned();
            let socket = match (passed.take_tcp_listener(index), passed.take_unix_listener(index)) {
                (Ok(Some(listener)), _) => PassedSocket::Tcp(listener),
                (_, Ok(Some(listener))) => PassedSocket::Unix(listener),
                // They begin behind standard error.
                _ => PassedSocket::Other(3 + index),
            };
            Named { name, socket }
        });
        Self { sockets: sockets.collect(), why_none: None }
    }

    /// Gives each place that names a socket of the service manager its own, in the order of `places`; `None` for the
    /// others. A name takes the sockets of that name, in the order they were passed; then `systemd` alone takes what is
    /// left, in that order, too. What nobody takes is an error: connections would wait there for ever.
    pub fn hand_out(mut self, places: &[&ListenAt]) -> Result<Vec<Option<PassedSocket>>, PassedError> {
        if let Some(Named { name, socket }) = self.sockets.iter().find(|named| named.socket.is_other()) {
            return Err(PassedError(format!(
                "{socket}, with the name \"{name}\", was passed and is no stream socket; write ListenStream= in the socket unit"
            )));
        }
        let all = self.to_string();
        let mut given: Vec<Option<PassedSocket>> = places.iter().map(|_| None).collect();
        for (place, given) in places.iter().zip(&mut given) {
            let ListenAt::Systemd(Some(name)) = place else { continue };
            let Some(index) = self.sockets.iter().position(|named| named.name == *name) else {
                return Err(PassedError(format!(
                    "no socket \"{name}\" is left for \"systemd:{name}\" in `server.listen`: {all}; write \
                     FileDescriptorName={name} in the socket unit, or a name that was passed"
                )));
            };
            *given = Some(self.sockets.remove(index).socket);
        }
        for (place, given) in places.iter().zip(&mut given) {
            let ListenAt::Systemd(None) = place else { continue };
            if self.sockets.is_empty() {
                return Err(PassedError(format!(
                    "no socket is left for \"systemd\" in `server.listen`: {all}; start it by a socket unit with a \
                     ListenStream= for each, or write an address"
                )));
            }
            *given = Some(self.sockets.remove(0).socket);
        }
        match self.sockets.first() {
            None => Ok(given),
            Some(Named { name, socket }) => Err(PassedError(format!(
                "the socket \"{name}\" ({socket}) was passed and nobody would answer there; add \"systemd:{name}\" to \
                 `server.listen`, or take it out of the socket unit"
            ))),
        }
    }
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.why_none {
            return f.write_str(why);
        }
        f.write_str("passed was ")?;
        if self.sockets.is_empty() {
            return f.write_str("none");
        }
        for (index, Named { name, socket }) in self.sockets.iter().enumerate() {
            write!(f, "{}\"{name}\" ({socket})", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl PassedSocket {
    fn is_other(&self) -> bool {
        matches!(self, Self::Other(_))
    }
}

impl fmt::Display for PassedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "{address}"),
                Err(_) => f.write_str("tcp"),
            },
            Self::Unix(listener) => match listener.local_addr().ok().as_ref().and_then(|address| address.as_pathname())
            {
                Some(path) => write!(f, "unix:{}", path.display()),
                None => f.write_str("unix"),
            },
            Self::Other(number) => write!(f, "file descriptor {number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sockets on free ports, under these names.
    fn passed(names: &[&str]) -> (Passed, Vec<String>) {
        let sockets: Vec<_> = names
            .iter()
            .map(|name| Named {
                name: (*name).to_owned(),
                socket: PassedSocket::Tcp(TcpListener::bind("127.0.0.1:0").expect("a free port")),
            })
            .collect();
        let addresses = sockets.iter().map(|named| named.socket.to_string()).collect();
        (Passed { sockets, why_none: None }, addresses)
    }

    fn systemd(name: &str) -> ListenAt {
        ListenAt::Systemd((!name.is_empty()).then(|| name.to_owned()))
    }

    fn handed_out(passed: Passed, places: &[ListenAt]) -> Result<Vec<String>, String> {
        let given = passed.hand_out(&places.iter().collect::<Vec<_>>()).map_err(|error| error.to_string())?;
        Ok(given.iter().map(|socket| socket.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)).collect())
    }

    #[test]
    fn names_take_theirs_and_the_others_what_is_left_in_order() {
        let (sockets, at) = passed(&["a", "web", "b", "web"]);
        let own = ListenAt::Tcp(([127, 0, 0, 1], 1).into());
        let places = [systemd(""), systemd("web"), own, systemd("web"), systemd("")];
        let expected = [&at[0], &at[1], "-", &at[3], &at[2]].map(str::to_owned);
        assert_eq!(handed_out(sockets, &places), Ok(expected.to_vec()));
    }

    #[test]
    fn a_name_that_was_not_passed_is_told_what_was() {
        let (sockets, at) = passed(&["web"]);
        let error = handed_out(sockets, &[systemd("public")]).expect_err("there is none of that name");
        assert!(error.contains("\"systemd:public\"") && error.contains("FileDescriptorName=public"), "{error}");
        assert!(error.contains(&format!("passed was \"web\" ({})", at[0])), "{error}");
    }

    #[test]
    fn too_few_and_too_many_are_told() {
        let error = handed_out(Passed::default(), &[systemd("")]).expect_err("none was passed");
        assert!(error.contains("passed was none") && error.contains("socket unit"), "{error}");
        let (sockets, at) = passed(&["web", "more"]);
        let error = handed_out(sockets, &[systemd("")]).expect_err("one is left");
        assert!(error.contains(&format!("\"more\" ({})", at[1])) && error.contains("systemd:more"), "{error}");
    }
}
