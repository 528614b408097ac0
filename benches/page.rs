//! How long a browser takes to paint the fleet of a thousand targets: `cargo bench --bench page`. Prints a row in Markdown.
//!
//! In a real Chromium, of what the page's tests need (`tools/setup --tests`); browser and program share the machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot be set up has nothing to say")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/page/drive.rs"]
mod drive;

fn main() {
    let (_home, loadline) = drive::a_thousand_targets();
    let printed = drive::story("paints", &loadline.url, loadline.pid());
    loadline.stop();
    let mut paints: Vec<f64> = printed.lines().map(|line| line.parse().unwrap()).collect();
    paints.sort_by(f64::total_cmp);
    let (middle, tenth) = (paints[paints.len() / 2], paints[paints.len() * 9 / 10]);
    println!("| what | measured | aim |\n|---|---|---|");
    println!(
        "| first contentful paint of the fleet, 1,000 targets (50 rows a page) | p50 {middle:.0} ms, p90 {tenth:.0} ms, longest {:.0} ms of {} | 500 ms |",
        paints[paints.len() - 1],
        paints.len()
    );
}
