//! One target: its replicas, its metrics against their targets, its last decisions with their steps.

use std::io::{self, Write};
use std::ops::Range;

use crossterm::event::KeyCode;

use super::super::table::wrapped;
use super::super::{Paint, history, status, why};
use super::fleet::rendered;
use super::follow::Known;
use crate::edge::api::{Decisions, Story, TargetDetail, TargetStatus};
use crate::model::{AlertState, Severity, TargetId, Timestamp};

/// What is chosen.
#[derive(Debug)]
pub(super) struct One {
    target: TargetId,
    /// Whether there is a fleet to go back to on the screen before.
    from_fleet: bool,
    /// The decision that is chosen, by its sequence, so that it stays where new ones come; `None`: the newest.
    chosen: Option<i64>,
    /// Whether the steps of the chosen one are closed.
    closed: bool,
    /// The first line that is shown of what is scrolled.
    first: usize,
    /// What was drawn last.
    drawn: Drawn,
}

/// Where the chosen decision was drawn, among the lines that are scrolled.
#[derive(Debug, Default)]
struct Drawn {
    /// Which one it was.
    sequence: Option<i64>,
    /// Its lines; those of the newest begin with all that stands above it.
    lines: Range<usize>,
    /// How many lines were in sight.
    room: usize,
}

/// So many lines remain in sight where a decision that is longer than the screen is scrolled.
const KEPT: usize = 2;

impl One {
    /// Of a target, its newest decision open.
    pub(super) fn new(target: TargetId, from_fleet: bool) -> Self {
        One { target, from_fleet, chosen: None, closed: false, first: 0, drawn: Drawn::default() }
    }

    /// Does what a key says.
    pub(super) fn key(&mut self, key: KeyCode, known: &Known) {
        let Some((_, decisions)) = known.of(&self.target) else { return };
        // The newest first, as they are shown.
        let sequences: Vec<i64> = decisions.decisions.iter().rev().map(|story| story.decision.sequence).collect();
        let at = self.chosen.and_then(|chosen| sequences.iter().position(|s| *s == chosen)).unwrap_or(0);
        // A decision that is longer than the screen is read to its end before the next one is chosen.
        let Drawn { lines, room, .. } = &self.drawn;
        let step = room.saturating_sub(KEPT).max(1);
        match key {
            KeyCode::Up | KeyCode::Char('k') if self.first > lines.start => {
                return self.first = self.first.saturating_sub(step).max(lines.start);
            }
            KeyCode::Down | KeyCode::Char('j') if self.first + room < lines.end => {
                return self.first = (self.first + step).min(lines.end.saturating_sub(*room));
            }
            _ => {}
        }
        let to = match key {
            KeyCode::Up | KeyCode::Char('k') => at.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => at + 1,
            KeyCode::PageUp => at.saturating_sub(10),
            KeyCode::PageDown => at + 10,
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => usize::MAX,
            KeyCode::Enter | KeyCode::Char(' ') => return self.closed = !self.closed,
            _ => return,
        };
        let to = to.min(sequences.len().saturating_sub(1));
        self.chosen = if to == 0 { None } else { sequences.get(to).copied() };
    }

    /// What to draw.
    pub(super) fn lines(&mut self, known: &Known, head: String, width: usize, height: usize, paint: Paint) -> Vec<String> {
        let mut lines = vec![head];
        let Some((detail, decisions)) = known.of(&self.target) else {
            lines.push(paint.bold(self.target.as_str()));
            return lines;
        };
        let mut out = Vec::new();
        // Writing into memory cannot fail.
        let _ = now(&mut out, detail, width, paint);
        let mut top: Vec<String> = String::from_utf8_lossy(&out).lines().map(str::to_owned).collect();
        let (mut told, mut chosen) = self.decisions(decisions, width, paint);
        // What is so now stands still while decisions are scrolled, unless it would take most of the screen: then it is scrolled with them.
        if top.len() <= height / 2 {
            lines.append(&mut top);
        } else {
            chosen = if chosen.start == 0 { 0..chosen.end + top.len() } else { chosen.start + top.len()..chosen.end + top.len() };
            top.append(&mut told);
            told = top;
        }
        let room = height.saturating_sub(lines.len() + 1);
        self.scroll(decisions, chosen, room);
        self.first = self.first.min(told.len().saturating_sub(room));
        lines.extend(told.drain(self.first..).take(room));
        lines.resize_with(height.saturating_sub(1).max(1), String::new);
        let back = if self.from_fleet { "Esc back" } else { "Esc fleet" };
        lines.push(paint.dim(&format!("q quit  {back}  ↑↓ choose a decision  Enter open, close")));
        lines
    }

    /// Brings the chosen decision into sight where another one is chosen; else what is read of it stays where it is, though newer ones come.
    fn scroll(&mut self, decisions: &Decisions, chosen: Range<usize>, room: usize) {
        let sequence = self.chosen.or_else(|| decisions.decisions.last().map(|story| story.decision.sequence));
        let (newest, before) = (chosen.start == 0 && self.drawn.lines.start == 0, &self.drawn);
        if before.room == room && (newest || before.sequence == sequence) {
            // What was above it may have become more or less.
            self.first = (self.first + chosen.start).saturating_sub(before.lines.start).min(chosen.end.saturating_sub(1));
        } else {
            self.first = self.first.min(chosen.start).max(chosen.end.min(chosen.start + room).saturating_sub(room));
        }
        self.drawn = Drawn { sequence, lines: chosen, room };
    }

    /// The decisions, the newest first, and which lines are of the chosen one.
    fn decisions(&self, decisions: &Decisions, width: usize, paint: Paint) -> (Vec<String>, Range<usize>) {
        const INDENT: usize = 6;
        let stories: Vec<&Story> = decisions.decisions.iter().rev().collect();
        let at = self.chosen.and_then(|chosen| stories.iter().position(|story| story.decision.sequence == chosen)).unwrap_or(0);
        let table = rendered(&history::HEADER, stories.iter().map(|story| history::row(story, paint)));
        let (mut lines, mut chosen) = (Vec::new(), 0..1);
        for (n, row) in table.into_iter().enumerate() {
            let Some(n) = n.checked_sub(1) else {
                lines.push(paint.dim(&format!("  {row}")));
                continue;
            };
            if n != at {
                lines.push(format!("  {row}"));
                continue;
            }
            // The table's own head stays in sight with the first.
            let start = if n == 0 { 0 } else { lines.len() };
            lines.push(format!("{} {row}", paint.bold("›")));
            if !self.closed {
                let mut out = Vec::new();
                let _ = opened(&mut out, stories[n], width.saturating_sub(INDENT), paint);
                let out = String::from_utf8_lossy(&out);
                lines.extend(out.lines().filter(|line| !line.is_empty()).map(|line| format!("{:INDENT$}{line}", "")));
            }
            chosen = start..lines.len();
        }
        if stories.is_empty() {
            lines.push("Nothing has been decided yet.".to_owned());
        }
        (lines, chosen)
    }
}

fn now(out: &mut dyn Write, detail: &TargetDetail, width: usize, paint: Paint) -> io::Result<()> {
    let status = &detail.status;
    writeln!(out, "{}", paint.bold(status.target.as_str()))?;
    let mut told = vec![status.reason.clone(), replicas(status, paint)];
    if let Some(file) = &status.frozen {
        told.push(paint.red(&format!("! frozen by {file}: nothing is commanded until it is removed")));
    }
    for alert in status.alerts.iter().filter(|alert| alert.state == AlertState::Firing) {
        let line = format!("! {} ({})", alert.message, alert.name);
        told.push(if alert.severity == Severity::Critical { paint.red(&line) } else { paint.yellow(&line) });
    }
    for line in told.iter().flat_map(|line| wrapped(line, width)) {
        writeln!(out, "{line}")?;
    }
    writeln!(out)?;
    why::metrics(out, &status.metrics, status.at.unwrap_or(Timestamp::MIN), width, paint)
}

fn replicas(shown: &TargetStatus, paint: Paint) -> String {
    let number = |n: Option<u32>| n.map_or_else(|| "–".to_owned(), |n| n.to_string());
    let count = match (shown.current, shown.desired) {
        (Some(current), Some(desired)) if current != desired => paint.bold(&format!("{current} → {desired}")),
        (current, desired) => paint.bold(&number(current.or(desired))),
    };
    let range = if shown.min.is_none() && shown.max.is_none() { "–".to_owned() } else { format!("{}–{}", number(shown.min), number(shown.max)) };
    let seen = shown.seen_at.map_or_else(|| "not seen".to_owned(), |seen| format!("seen {}", history::time(seen)));
    let evaluated = shown.at.map(|at| format!(", evaluated {} UTC", history::time(at))).unwrap_or_default();
    let mode = shown.mode.as_deref().unwrap_or("no policy");
    let does = status::paint_does(shown.verdict, shown.held(), paint);
    format!("{does}  replicas {count}  ready {}  range {range}  mode {mode}  {}", number(shown.ready), paint.dim(&format!("{seen}{evaluated}")))
}

/// Why a decision was made, its steps, and what came of it.
fn opened(out: &mut dyn Write, story: &Story, width: usize, paint: Paint) -> io::Result<()> {
    for line in wrapped(&story.sentence, width) {
        writeln!(out, "{line}")?;
    }
    why::steps(out, &story.decision, width, paint)?;
    let mut came = Vec::new();
    why::after(&mut came, story, &[])?;
    for line in String::from_utf8_lossy(&came).lines().flat_map(|line| wrapped(line, width)) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::follow::Answer;
    use super::*;
    use crate::edge::view::View;
    use crate::edge::view::tests::{api, at, command, decision, grant, outcome};
    use crate::model::Audit;

    fn known() -> Known {
        let view = View::new();
        let entries = [Audit::Decision(decision(10, 3, 5)), grant(10, 3, 5), command(10, 3, 5), outcome(10, 5), Audit::Decision(decision(20, 5, 6))];
        entries.into_iter().for_each(|entry| view.audit(at(11), entry));
        let decisions = Decisions { target: api(), decisions: view.decisions(&api(), 50, None).unwrap(), by_hand: Vec::new(), gone: None, next: None };
        let mut known = Known::default();
        known.answer(Answer::Target(Box::new((view.detail(&api()).unwrap(), decisions))));
        known
    }

    #[test]
    fn the_newest_decision_is_open_and_others_are_opened() {
        let (known, mut one) = (known(), One::new(api(), true));
        let shown = one.lines(&known, "head".to_owned(), 100, 30, Paint::PLAIN).join("\n");
        assert!(shown.contains("› 2025-11-24 16:00:20  5 → 6") && shown.contains("The arbiter has not answered yet."), "{shown}");
        one.key(KeyCode::Down, &known);
        let shown = one.lines(&known, "head".to_owned(), 100, 30, Paint::PLAIN).join("\n");
        assert!(shown.contains("› 2025-11-24 16:00:10  3 → 5") && shown.contains("Outcome"), "{shown}");
        one.key(KeyCode::Enter, &known);
        assert!(!one.lines(&known, "head".to_owned(), 100, 30, Paint::PLAIN).join("\n").contains("Outcome"));
    }

    /// Everything that is to be read of a decision is reached with the arrows, on a small terminal too, and nothing of it is cut.
    #[test]
    fn what_is_longer_than_the_screen_is_scrolled() {
        for (width, height) in [(80, 24), (60, 15)] {
            let (known, mut one) = (known(), One::new(api(), true));
            let (_, decisions) = known.of(&api()).unwrap();
            let mut seen = String::new();
            let mut draw = |one: &mut One| {
                let lines = one.lines(&known, "head".to_owned(), width, height, Paint::PLAIN);
                assert!(lines.len() <= height);
                let lines: Vec<String> = lines.iter().map(|line| super::super::screen::fit(line, width).trim().to_owned()).collect();
                seen += &lines.join(" ");
                lines
            };
            let first = draw(&mut one);
            for _ in 0..20 {
                one.key(KeyCode::Down, &known);
                draw(&mut one);
            }
            for _ in 0..20 {
                one.key(KeyCode::Up, &known);
            }
            assert_eq!(draw(&mut one), first, "and back to the top");
            assert!(seen.contains(", evaluated ") && seen.contains(" UTC"), "{seen}");
            for story in &decisions.decisions {
                assert!(seen.contains(&story.sentence), "at {width}: {} in {seen}", story.sentence);
                for step in &story.decision.steps {
                    assert!(seen.contains(&format!("{:?}", step.step)), "at {width}: {:?} in {seen}", step.step);
                }
            }
        }
    }

    #[test]
    fn any_height_is_drawn() {
        let (known, mut one) = (known(), One::new(api(), true));
        for height in 0..40 {
            one.lines(&known, String::new(), 40, height, Paint::PLAIN);
            one.key(KeyCode::Down, &known);
        }
    }
}
