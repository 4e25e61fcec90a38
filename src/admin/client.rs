//! The command line's side of the admin socket: blocking, one request a connection.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::protocol::{ErrorCode, Request, Response};

/// For a connection of somebody who waits for answers without end.
const CONNECT: Duration = Duration::from_secs(15);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing listens on the socket.
    #[error(
        "the daemon is not reachable on {path}: {source}; is `staunch serve` running, and may this user open the socket?"
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The daemon took the request and did not answer in time. Whether it was carried out is not known.
    #[error(
        "the daemon on {path} did not answer within {} s; it runs but is stuck or very busy, and the request may still be carried out",
        patience.as_secs()
    )]
    Silent {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        patience: Duration,
    },
    /// The daemon has closed the connection with the request in hand. Whether it was carried out is not known.
    #[error(
        "the daemon on {path} has closed the connection and given no answer, as it does when it ends; what was asked may have \
         been done"
    )]
    Ended {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon said no.
    #[error("{message}")]
    Refused {
        /// Kind.
        code: ErrorCode,
        /// Its words.
        message: String,
    },
    /// The daemon's answer is not of this protocol.
    #[error("the daemon's answer is not understood: {0}; are daemon and command line of one version?")]
    Protocol(String),
}

/// An open exchange.
pub struct Exchange {
    lines: BufReader<UnixStream>,
    path: PathBuf,
    patience: Option<Duration>,
}

impl Exchange {
    /// Sends `request`; answers are read with [`Exchange::response`] and [`Exchange::line`].
    pub fn open(path: &Path, request: &Request, timeout: Option<Duration>) -> Result<Self, Error> {
        let failed = |source| failed(path, timeout, source);
        let mut stream = connect(path, timeout.unwrap_or(CONNECT)).map_err(failed)?;
        stream.set_read_timeout(timeout).map_err(failed)?;
        let mut line = serde_json::to_vec(request).map_err(|e| Error::Protocol(e.to_string()))?;
        line.push(b'\n');
        stream.write_all(&line).map_err(failed)?;
        Ok(Self { lines: BufReader::new(stream), path: path.to_owned(), patience: timeout })
    }

    /// The next raw line; `None` at the end.
    pub fn line(&mut self) -> Result<Option<String>, Error> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(line)),
            Err(source) => Err(failed(&self.path, self.patience, source)),
        }
    }

    /// The first line: whether the request was carried out.
    pub fn response(&mut self) -> Result<serde_json::Value, Error> {
        // One that is cut short is none.
        let line = self.line()?.filter(|line| line.ends_with('\n'));
        let line = line.ok_or_else(|| Error::Ended { path: self.path.clone() })?;
        match serde_json::from_str(&line) {
            Ok(Response::Ok(value)) => Ok(value),
            Ok(Response::Error { code, message }) => Err(Error::Refused { code, message }),
            Err(error) => Err(Error::Protocol(error.to_string())),
        }
    }
}

/// Connects, within a time: where nobody takes connections off a queue that is full, the kernel has everybody else wait.
fn connect(path: &Path, patience: Duration) -> std::io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // For connecting, and for a request that nobody reads.
    socket.set_write_timeout(Some(patience))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(OwnedFd::from(socket).into())
}

/// Whether somebody listens on a socket, be it that he is too busy to take a connection.
pub fn is_heard(path: &Path) -> bool {
    connect(path, Duration::from_secs(1)).map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |_| true)
}

fn failed(path: &Path, patience: Option<Duration>, source: std::io::Error) -> Error {
    match source.kind() {
        // The first is what unix sockets report, the second is allowed for.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Error::Silent { path: path.to_owned(), patience: patience.unwrap_or(CONNECT) }
        }
        _ => Error::Unreachable { path: path.to_owned(), source },
    }
}

/// One request, one answer.
pub fn ask(path: &Path, request: &Request, timeout: Duration) -> Result<serde_json::Value, Error> {
    Exchange::open(path, request, Some(timeout))?.response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_silent_daemon_is_not_called_unreachable() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("admin.sock");
        let patience = Duration::from_millis(20);
        assert!(matches!(ask(&path, &Request::Status, patience), Err(Error::Unreachable { .. })));
        // Connections are taken by the kernel and answered by nobody.
        let _listener = UnixListener::bind(&path).expect("bound");
        let error = ask(&path, &Request::Status, patience).expect_err("no answer");
        assert!(matches!(error, Error::Silent { .. }), "{error:?}");
        assert!(!error.to_string().contains("not reachable"), "{error}");
    }

    #[test]
    fn a_daemon_that_ends_with_a_request_in_hand_is_not_called_another_version() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("admin.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        for said in ["", "{\"ok\":{}", "{\"ok\":7}\n", "hello\n"] {
            let answer = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut stream, _) = listener.accept().expect("a client");
                    let mut request = String::new();
                    BufReader::new(&stream).read_line(&mut request).expect("a request");
                    stream.write_all(said.as_bytes()).expect("said");
                });
                ask(&path, &Request::Status, Duration::from_secs(10))
            });
            match answer {
                Ok(answer) => assert!(said.contains('7') && answer == 7, "{said}: {answer}"),
                Err(Error::Ended { .. }) => assert!(!said.ends_with('\n'), "{said}"),
                Err(error) => assert!(said == "hello\n" && error.to_string().contains("version"), "{said}: {error}"),
            }
        }
    }

    #[test]
    fn a_daemon_that_takes_no_connection_keeps_nobody_waiting() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("admin.sock");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("socket");
        listener.bind(&SockAddr::unix(&path).expect("an address")).expect("bound");
        listener.listen(0).expect("listens");
        let patience = Duration::from_millis(20);
        // As many as the queue takes; from then on the kernel would have everybody wait.
        let waiting: Vec<_> = (0..8).map_while(|_| connect(&path, patience).ok()).collect();
        assert!(waiting.len() < 8);
        let error = ask(&path, &Request::Status, patience).expect_err("no answer");
        assert!(matches!(error, Error::Silent { .. }) && is_heard(&path), "{error:?}");
    }
}
