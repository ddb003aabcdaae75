//! A blocking HTTP/1.1 client over one kept connection: enough for load and queries, and cheap.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::protocol::Protocol;

/// The longest reply that is read.
const REPLY_BYTES_MAX: usize = 1 << 30;

/// One connection to one server.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

/// A reply's status and body.
#[derive(Debug)]
pub(crate) struct Reply {
    /// HTTP status code.
    pub(crate) status: u16,
    /// Body, whole.
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// A client that connects at its first request.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Client { address, connection: None }
    }

    /// Sends a body of remote write 1.0.
    pub(crate) fn write(&mut self, path: &str, body: &[u8]) -> Result<Reply> {
        self.write_by(Protocol::Rw1, path, body)
    }

    /// Sends a body of this protocol.
    pub(crate) fn write_by(&mut self, protocol: Protocol, path: &str, body: &[u8]) -> Result<Reply> {
        self.request("POST", path, protocol.headers(), body)
    }

    /// Sends a tenant's remote-write body.
    pub(crate) fn write_as(&mut self, path: &str, body: &[u8], tenant: &str) -> Result<Reply> {
        self.request("POST", path, &format!("{}THANOS-TENANT: {tenant}\r\n", Protocol::Rw1.headers()), body)
    }

    /// Gets a path.
    pub(crate) fn get(&mut self, path: &str) -> Result<Reply> {
        self.request("GET", path, "", b"")
    }

    /// Posts a form.
    pub(crate) fn post_form(&mut self, path: &str, form: &[(&str, String)]) -> Result<Reply> {
        let body: Vec<String> = form.iter().map(|(k, v)| format!("{k}={}", percent(v))).collect();
        let headers = "Content-Type: application/x-www-form-urlencoded\r\n";
        self.request("POST", path, headers, body.join("&").as_bytes())
    }

    fn request(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Result<Reply> {
        match self.try_request(method, path, headers, body) {
            Ok(reply) => Ok(reply),
            Err(e) => {
                self.connection = None;
                Err(e).with_context(|| format!("{method} {}{path}", self.address))
            }
        }
    }

    fn try_request(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Result<Reply> {
        if self.connection.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(300)))?;
            self.connection = Some(BufReader::with_capacity(64 << 10, stream));
        }
        let connection = self.connection.as_mut().expect("connected above");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        let stream = connection.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let reply = read_reply(connection)?;
        if reply.1 {
            self.connection = None;
        }
        Ok(reply.0)
    }
}

/// Reads one reply; the flag says that the server closes the connection.
fn read_reply(connection: &mut BufReader<TcpStream>) -> Result<(Reply, bool)> {
    let mut line = String::new();
    connection.read_line(&mut line)?;
    let status: u16 = line.split(' ').nth(1).and_then(|s| s.parse().ok()).context("no HTTP status line")?;
    let (mut length, mut chunked, mut close) = (None, false, false);
    loop {
        line.clear();
        if connection.read_line(&mut line)? == 0 {
            bail!("reply ends in its headers");
        }
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        match header.split_once(':').map(|(k, v)| (k, v.trim())) {
            Some(("content-length", v)) => length = Some(v.parse::<usize>()?),
            Some(("transfer-encoding", "chunked")) => chunked = true,
            Some(("connection", "close")) => close = true,
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            line.clear();
            connection.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).context("chunk size")?;
            let start = body.len();
            if start + size > REPLY_BYTES_MAX {
                bail!("reply over {REPLY_BYTES_MAX} bytes");
            }
            body.resize(start + size, 0);
            connection.read_exact(&mut body[start..])?;
            line.clear();
            connection.read_line(&mut line)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = length {
        if length > REPLY_BYTES_MAX {
            bail!("reply over {REPLY_BYTES_MAX} bytes");
        }
        body.resize(length, 0);
        connection.read_exact(&mut body)?;
    } else if status != 204 {
        connection.read_to_end(&mut body)?;
        close = true;
    }
    Ok((Reply { status, body }, close))
}

/// As a part of a URL.
pub(crate) fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}
