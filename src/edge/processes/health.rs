//! Asks instances whether they can serve: one thread for all fleets, each probe with a deadline.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::document::Probe;

/// Probes that wait to be sent. Each instance has one under way at most, and four full fleets
/// fit; a probe that finds no room is sent at the next turn.
const MAX_WAITING: usize = 4096;

/// How much of an answer is read before the connection is closed: more than any health page.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// One question to an instance.
pub(crate) struct Question {
    pub(crate) port: u16,
    pub(crate) probe: Probe,
    pub(crate) timeout: Duration,
    /// Called with the answer, on the prober's thread: must not wait.
    pub(crate) answer: Box<dyn FnOnce(bool) + Send>,
}

/// The thread that asks. It ends when it is dropped.
pub(crate) struct Prober {
    questions: Option<mpsc::Sender<Question>>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    pub(crate) fn start() -> std::io::Result<Prober> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (questions, mut asked) = mpsc::channel::<Question>(MAX_WAITING);
        let thread = std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
            runtime.block_on(async move {
                while let Some(question) = asked.recv().await {
                    tokio::spawn(async move {
                        let Question { port, probe, timeout, answer } = question;
                        let healthy = tokio::time::timeout(timeout, ask(port, &probe)).await;
                        answer(matches!(healthy, Ok(Ok(true))));
                    });
                }
            });
        })?;
        Ok(Prober { questions: Some(questions), thread: Some(thread) })
    }

    /// Asks; `false` where there is no room now.
    pub(crate) fn ask(&self, question: Question) -> bool {
        self.questions.as_ref().is_some_and(|questions| questions.try_send(question).is_ok())
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.questions = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(event = "part-failed", "the prober's thread panicked");
        }
    }
}

async fn ask(port: u16, probe: &Probe) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    let Probe::Http { path } = probe else { return Ok(true) };
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: loadline\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // To its end, so that the instance does not see its answer refused.
    while answer.len() < MAX_ANSWER_BYTES {
        let before = answer.len();
        if stream.read_buf(&mut answer).await? == 0 || (before == 0 && !answer.starts_with(b"H")) {
            break;
        }
    }
    Ok(is_good(&answer))
}

/// Whether an answer begins with a status of 200 to 399.
fn is_good(answer: &[u8]) -> bool {
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let http = words.next().is_some_and(|version| version.starts_with(b"HTTP/1."));
    let status = words.next().and_then(|status| std::str::from_utf8(status).ok()?.parse::<u16>().ok());
    http && status.is_some_and(|status| (200..400).contains(&status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_below_400_is_healthy() {
        for (answer, good) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.0 302 Found\r\n\r\n", true),
            ("HTTP/1.1 503 Busy\r\n\r\n", false),
            ("HTTP/1.1 404 Not Found\r\n", false),
            ("SSH-2.0-x 200\r\n", false),
            ("HTTP/1.1", false),
            ("", false),
        ] {
            assert_eq!(is_good(answer.as_bytes()), good, "{answer}");
        }
    }
}
