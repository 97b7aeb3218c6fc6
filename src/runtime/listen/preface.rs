//! Whether a client begins with HTTP/2, where TLS has not told it.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

/// What HTTP/2 begins with (RFC 9113, 3.4); no method of HTTP/1.1 begins like this.
const PREFACE: [u8; 4] = *b"PRI ";
/// How soon one who has sent a part of it is looked at again, and how often: it comes in one piece, and who sends it in many is
/// taken for one who speaks HTTP/1.1, with the limits of that.
const PREFACE_AGAIN: Duration = Duration::from_millis(10);
const PREFACE_LOOKS: u32 = 10;

/// Whether a client begins with HTTP/2. What it sends stays where it is: hyper reads a head that it gets in two parts into a
/// buffer of twice the size.
pub(super) async fn begins_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut begin = [0; PREFACE.len()];
    for _ in 0..PREFACE_LOOKS {
        let length = stream.peek(&mut begin).await?;
        if length == 0 || begin[..length] != PREFACE[..length] {
            return Ok(false);
        }
        if length == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(PREFACE_AGAIN).await;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn http2_is_told_by_what_it_begins_with_and_nothing_is_taken_away() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (parts, expected) in [
            (vec!["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], true),
            (vec!["P", "RI", " *"], true),
            (vec!["P", "OST / HTTP/1.1\r\n"], false),
            (vec!["GET / HTTP/1.1\r\n\r\n"], false),
            (vec!["G"], false),
            (vec!["P"], false),
            (vec![], false),
        ] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let sends = async {
                for part in &parts {
                    client.write_all(part.as_bytes()).await.unwrap();
                    tokio::time::sleep(PREFACE_AGAIN / 2).await;
                }
                client.shutdown().await.unwrap();
            };
            let (told, ()) = tokio::join!(begins_http2(&stream), sends);
            assert_eq!(told.unwrap(), expected, "{parts:?}");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, parts.concat());
        }
    }
}
