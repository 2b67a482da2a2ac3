//! A keep-alive HTTP/1.1 client as small as it can be, so that the load generator leaves the machine to what is measured.

use concordat_broker::config::RpcAddr;
use std::io::{Error, ErrorKind, Result};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for T {}

/// One connection, opened when first needed and again after its peer closed it.
pub struct Connection {
    addr: RpcAddr,
    stream: Option<BufReader<Box<dyn Stream>>>,
    out: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("HTTP answer: {what}"))
}

impl Connection {
    /// A connection to come.
    pub fn new(addr: &RpcAddr) -> Self {
        Self { addr: addr.clone(), stream: None, out: Vec::new() }
    }

    /// `GET path`
    pub async fn get(&mut self, path: &str) -> Result<Answer> {
        self.get_with(path, "").await
    }

    /// `GET path` with header lines, each ended by `\r\n`.
    pub async fn get_with(&mut self, path: &str, headers: &str) -> Result<Answer> {
        self.out.clear();
        self.out.extend_from_slice(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n{headers}\r\n").as_bytes());
        self.round().await
    }

    /// `POST path` with header lines, each ended by `\r\n`.
    pub async fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> Result<Answer> {
        self.out.clear();
        let head = format!("POST {path} HTTP/1.1\r\nHost: bench\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(body);
        self.round().await
    }

    /// Hands a transaction to CometBFT: form body, hexadecimal.
    pub async fn submit(&mut self, method: &str, tx: &[u8]) -> Result<Answer> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.out.clear();
        let head = format!(
            "POST /{method} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\ntx=0x",
            5 + 2 * tx.len()
        );
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend(tx.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]));
        self.round().await
    }

    /// A connection that was open may have been closed while idle (CometBFT does so after 10 s): one more try, on a new
    /// one. Everything that is sent here may be sent twice.
    async fn round(&mut self) -> Result<Answer> {
        if let Some(mut stream) = self.stream.take()
            && let Ok(answer) = exchange(&mut stream, &self.out).await
        {
            self.stream = Some(stream);
            return Ok(answer);
        }
        let mut stream = BufReader::new(connect(&self.addr).await?);
        let answer = exchange(&mut stream, &self.out).await?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

async fn connect(addr: &RpcAddr) -> Result<Box<dyn Stream>> {
    Ok(match addr {
        RpcAddr::Unix(path) => Box::new(UnixStream::connect(path).await?),
        RpcAddr::Tcp(addr) => {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
    })
}

async fn exchange(stream: &mut BufReader<Box<dyn Stream>>, request: &[u8]) -> Result<Answer> {
    stream.get_mut().write_all(request).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| broken("no status"))?;
    let (mut length, mut chunked) = (None, false);
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse::<usize>().ok(),
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        while read_chunk(stream, &mut body).await? {}
    } else {
        body.resize(length.ok_or_else(|| broken("no length"))?, 0);
        stream.read_exact(&mut body).await?;
    }
    Ok(Answer { status, body })
}

async fn read_chunk(stream: &mut BufReader<Box<dyn Stream>>, body: &mut Vec<u8>) -> Result<bool> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let size = usize::from_str_radix(line.trim_end(), 16).map_err(|_| broken("a chunk without size"))?;
    let from = body.len();
    body.resize(from + size + 2, 0);
    stream.read_exact(&mut body[from..]).await?;
    body.truncate(from + size);
    Ok(size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A server that answers each request with the next of `answers`, and closes where one is empty.
    async fn serve(listener: TcpListener, answers: Vec<&'static str>) -> Vec<String> {
        let (mut got, mut stream) = (Vec::new(), None);
        for answer in answers {
            let mut open: TcpStream = match stream.take() {
                Some(open) => open,
                None => listener.accept().await.unwrap().0,
            };
            let mut buffer = vec![0; 4096];
            let n = open.read(&mut buffer).await.unwrap();
            got.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
            if !answer.is_empty() {
                open.write_all(answer.as_bytes()).await.unwrap();
                stream = Some(open);
            }
        }
        got
    }

    #[tokio::test]
    async fn answers_come_by_length_or_in_chunks_and_a_closed_connection_is_opened_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = RpcAddr::Tcp(listener.local_addr().unwrap().to_string());
        let answers = vec![
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
            "",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ];
        let server = tokio::spawn(serve(listener, answers));
        let mut c = Connection::new(&addr);
        assert_eq!(c.submit("broadcast_tx_sync", &[0x0a, 0xff]).await.unwrap().body, b"ok");
        let busy = c.get("/status").await.unwrap();
        assert_eq!((busy.status, busy.body.as_slice()), (503, b"abcd".as_slice()));
        assert_eq!(c.post("/v1", "A: b\r\n", b"{}").await.unwrap().status, 200);
        let got = server.await.unwrap();
        assert!(got[0].ends_with("Content-Length: 9\r\n\r\ntx=0x0aff"), "{}", got[0]);
        assert_eq!(got[2], got[3], "the same request went out again");
    }
}
