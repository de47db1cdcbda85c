//! What `curl` would be used for: requests over HTTP/1.1, one for each connection.

use std::io::{Error, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than anything is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// Asks a server at a URL such as `http://127.0.0.1:8090`. Gives the status and the body.
pub fn ask(
    method: &str,
    url: &str,
    path: &str,
    content_type: &str,
    body: &str,
) -> Result<(u16, String), Error> {
    let host = url.strip_prefix("http://").unwrap_or(url);
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: {content_type}\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let malformed = || Error::other(format!("this is no answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(malformed)?, body.to_owned()))
}
