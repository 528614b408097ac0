//! What ingest takes of memory is bounded, however much is sent at once and however slowly: by what `docs/operations.md` says
//! to plan for. Whoever finds no room is told to come again, also while it is still sending.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::{PATIENCE, Running, wait_for};

const MIB: u64 = 1024 * 1024;

/// The largest body.
const BODY: usize = 4 * 1024 * 1024;

/// As many as the queue takes at once.
const AT_ONCE: usize = 64;

/// The most that it may grow by: what `docs/operations.md` says to plan for beside aggregate, which holds next to nothing of one series.
fn most_growth() -> u64 {
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    let (bodies, waiting, commit, read_again) = (32, 32, 3 * 12, 32);
    // A connection reads ahead by up to 0.4 MiB (hyper's own limit).
    let connections = AT_ONCE as u64 * 2 / 5;
    (bodies + cores * 8 + waiting + commit + read_again + connections) * MIB
}

/// The most memory that the program has had since it was last asked to forget, in bytes.
fn peak(loadline: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", loadline.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// How much more than `before` that is. What the kernel counts is exact to some pages for each thread only, so that a peak can also
/// be told a little lower than before.
fn growth(loadline: &Running, before: u64) -> u64 {
    peak(loadline).saturating_sub(before)
}

/// Forgets how much it was.
fn forget_peak(loadline: &Running) {
    std::fs::write(format!("/proc/{}/clear_refs", loadline.pid()), "5").unwrap();
}

/// A body of the largest size: many samples with instances of this name.
fn body(instance: &str) -> Vec<u8> {
    let line = format!("{{\"target\":\"shop/Deployment/web\",\"metric\":\"cpu\",\"instance\":\"{instance}\",\"value\":0.5}}\n");
    line.repeat(BODY / line.len()).into_bytes()
}

/// One that takes far more memory to read than it has bytes.
fn one_line() -> Vec<u8> {
    let targets = "\"a/B/c\",".repeat(BODY / 8 - 8);
    format!("{{\"targets\":[{}],\"metric\":\"cpu\",\"value\":1}}", targets.trim_end_matches(',')).into_bytes()
}

fn connect(loadline: &Running) -> TcpStream {
    let stream = TcpStream::connect(loadline.url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn head(bytes: usize) -> String {
    format!("POST /api/v1/metrics HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-ndjson\r\ncontent-length: {bytes}\r\nconnection: close\r\n\r\n")
}

/// An answer's status, and what its head says.
fn answer(stream: &mut TcpStream) -> (u16, String) {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let status = text.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {text:?}")).parse().unwrap();
    (status, text.to_ascii_lowercase())
}

/// Clients that send all of a body before they listen, all at once: the answers of all.
fn all_at_once(loadline: &Running, body: &[u8]) -> Vec<(u16, String)> {
    let send = || {
        let mut stream = connect(loadline);
        stream.write_all(head(body.len()).as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        answer(&mut stream)
    };
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(send)).collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    })
}

#[test]
fn a_flood_of_large_bodies_takes_bounded_memory_and_everybody_is_answered() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("policies")).unwrap();
    let loadline = Running::start(home.path(), &[]);
    let before = peak(&loadline);
    for (what, body, read) in
        [("small samples", body("i"), 200), ("long names", body(&"i".repeat(250)), 200), ("a line of half a million targets", one_line(), 400)]
    {
        let answers = all_at_once(&loadline, &body);
        let of = |status: u16| answers.iter().filter(|(s, _)| *s == status).count();
        // One that is being read when the machine stands still is answered when its time is over.
        let late = answers.iter().filter(|(status, text)| *status == 503 && text.contains("took longer than 10 s")).count();
        println!("{what}: {} read, {} to come again, {late} late, {} MiB more", of(read), of(429), growth(&loadline, before) / MIB);
        assert!(of(read) >= 1, "{what}: some are read");
        assert!(of(429) >= 1 || of(read) == AT_ONCE, "{what}: who is too many is told at once");
        assert_eq!(of(read) + of(429) + late, AT_ONCE, "{what}: {answers:?}");
        assert!(answers.iter().all(|(status, text)| *status == read || text.contains("retry-after: ")), "{what}: {answers:?}");
    }
    let at_once = growth(&loadline, before);
    // Whoever announces a large body and sends it drop by drop holds room for a while, and is then told so.
    forget_peak(&loadline);
    let before_slow = peak(&loadline);
    let begun = body("slow");
    let mut slow: Vec<TcpStream> = (0..AT_ONCE).map(|_| connect(&loadline)).collect();
    for stream in &mut slow {
        stream.write_all(head(BODY).as_bytes()).unwrap();
        stream.write_all(&begun[..BODY / 8]).unwrap();
    }
    let answers: Vec<u16> = slow.iter_mut().map(|stream| answer(stream).0).collect();
    println!("slow senders: {answers:?}, {} MiB more", growth(&loadline, before_slow) / MIB);
    assert!(answers.iter().all(|status| [408, 429].contains(status)), "{answers:?}");
    wait_for("a small request to be taken", || loadline.post("{\"target\":\"shop/Deployment/web\",\"metric\":\"cpu\",\"value\":0.5}\n"));
    let most = at_once.max(growth(&loadline, before));
    assert!(most <= most_growth(), "{} MiB, and at most {} are planned for", most / MIB, most_growth() / MIB);
    assert_eq!(loadline.stop(), 0);
}
