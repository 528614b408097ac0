//! Bad input, in short: the checks of the fuzz targets over their corpora, over every input that once broke one, and over a few
//! thousand mutations of them (the same ones each time). The long runs are `make fuzz`; docs/testing.md has their counts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by it")]

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use loadline::runtime::clock::Stopwatch;
use peak_alloc::PeakAlloc;

#[path = "../fuzz/src/lib.rs"]
#[allow(clippy::pedantic, dead_code, missing_docs, unreachable_pub, reason = "a crate of its own, taken in as a module")]
mod checks;
#[path = "fuzz_corpora/seed.rs"]
mod seed;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// How many mutations of a target's corpus are tried, where `MUTATIONS` does not say so.
const MUTATIONS: u64 = 2_000;
/// The longest mutation, in bytes: what takes long is for the long runs.
const LONGEST: usize = 4_096;
/// The most memory of this whole process, in MB: all targets at once, each with an input of at most 1 MiB.
const MOST_MEMORY: f32 = 400.0;

macro_rules! targets {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            holds(stringify!($name), checks::$name::check);
        })+
    };
}

targets! { amounts avro container http lines policy replay }

/// Every target that there is has a test above.
#[test]
fn no_target_is_left_out() {
    let names: Vec<&str> = checks::TARGETS.iter().map(|(name, _)| *name).collect();
    let folders = |of: &str| -> Vec<String> { files(&root().join(of)).iter().map(|p| p.file_stem().unwrap().to_string_lossy().into_owned()).collect() };
    assert_eq!(folders("fuzz_targets"), names);
    assert_eq!(folders("corpus"), names);
}

/// `CORPORA=write cargo test --test fuzz_corpora seeds` seeds the corpora anew from the documents of the repository.
#[test]
fn seeds_come_from_real_documents() {
    if std::env::var_os("CORPORA").is_some_and(|v| v == "write") {
        seed::seed().unwrap();
    }
    for (name, _) in checks::TARGETS {
        assert!(files(&root().join("corpus").join(name)).len() >= 3, "the corpus of {name} is empty");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).map(|entries| entries.map(|e| e.unwrap().path()).collect()).unwrap_or_default();
    paths.sort();
    paths
}

/// A number from the environment: of a longer run.
fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

fn holds(name: &str, check: checks::Check) {
    let read = |of: &str| -> Vec<(PathBuf, Vec<u8>)> { files(&root().join(of).join(name)).into_iter().map(|p| (p.clone(), fs::read(p).unwrap())).collect() };
    let (corpus, regressions) = (read("corpus"), read("regressions"));
    let corpus: Vec<_> = corpus.into_iter().chain(regressions).collect();
    for (path, input) in &corpus {
        tried(check, input, &path.display().to_string());
    }
    let (mutations, seed) = (number_from("MUTATIONS").unwrap_or(MUTATIONS), number_from("SEED").unwrap_or(corpus.len() as u64));
    let (mut random, started) = (Random(seed), Stopwatch::start());
    for number in 0..mutations {
        let mut input = corpus[random.below(corpus.len())].1.clone();
        for _ in 0..=random.below(4) {
            mutate(&mut input, &corpus[random.below(corpus.len())].1, &mut random);
        }
        input.truncate(LONGEST);
        tried(check, &input, &format!("mutation {number} of seed {seed}"));
        if (number + 1) % 100_000 == 0 {
            println!("{name}: {} of {mutations} mutations of seed {seed}, {} s", number + 1, started.elapsed().as_secs());
        }
    }
    for (what, input) in enormous() {
        tried(check, &input, what);
    }
    let peak = MEMORY.peak_usage_as_mb();
    assert!(peak < MOST_MEMORY, "{peak} MB were needed");
}

fn tried(check: checks::Check, input: &[u8], what: &str) {
    if catch_unwind(|| check(input)).is_err() {
        let kept = std::env::temp_dir().join("loadline-bad-input");
        fs::write(&kept, input).unwrap();
        panic!("{what} breaks the check; it is kept in {}:\n{}", kept.display(), String::from_utf8_lossy(&input[..input.len().min(2_000)]));
    }
}

/// Inputs of up to 1 MiB that are made to be expensive.
fn enormous() -> Vec<(&'static str, Vec<u8>)> {
    const BYTES: usize = 1024 * 1024;
    let repeated = |text: &str| text.repeat(BYTES / text.len()).into_bytes();
    vec![
        ("a million brackets", repeated("[")),
        ("a million braces", repeated("{\"a\":")),
        ("a million digits", [b"0".as_slice(), &repeated("9")].concat()),
        ("many lines", "\n".repeat(50_000).into_bytes()),
        ("a list of a million entries", [b"{\"targets\":[".as_slice(), &repeated("\"a/b/c\",")].concat()),
        ("blocks within blocks", (0..1_400).flat_map(|depth| [" ".repeat(depth), "a:\n".to_owned()]).collect::<String>().into_bytes()),
        ("bytes of a length without an end", [b"\x00".as_slice(), &repeated("\u{0}")].concat()),
        ("lengths of the largest number", [b"\x01".as_slice(), &[0xff; BYTES]].concat()),
    ]
}

/// `SplitMix64` (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }
}

/// One change: of a bit, a byte, a stretch, a number; or a piece of another input.
fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    const WORDS: [&str; 16] = [
        "9223372036854775807",
        "-9223372036854775808",
        "1e999",
        "-0",
        "null",
        "\"\"",
        "{}",
        "[]",
        "\n",
        "\u{1b}[31m",
        "\u{0}",
        "é",
        ": ",
        "4294967295",
        "0",
        "1e-9",
    ];
    if input.is_empty() {
        input.extend_from_slice(other);
        return;
    }
    let at = random.below(input.len());
    let end = (at + 1 + random.below(16)).min(input.len());
    match random.below(8) {
        0 => input[at] ^= 1 << random.below(8),
        1 => input[at] = random.next().to_le_bytes()[0],
        2 => drop(input.drain(at..end)),
        3 => {
            let piece = input[at..end].to_vec();
            input.splice(at..at, piece);
        }
        4 => drop(input.splice(at..end, WORDS[random.below(WORDS.len())].bytes())),
        5 => drop(input.splice(at..at, WORDS[random.below(WORDS.len())].bytes())),
        6 if !other.is_empty() => {
            let from = random.below(other.len());
            drop(input.splice(at..end, other[from..(from + 1 + random.below(64)).min(other.len())].iter().copied()));
        }
        _ => {
            // The number that stands there, another one.
            let digits = input[at..].iter().take_while(|b| b.is_ascii_digit()).count();
            drop(input.splice(at..at + digits, (random.next() >> random.below(64)).to_string().into_bytes()));
        }
    }
}
