//! Asks the server once a second what is known, on a thread of its own, so that keys are never waited for.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use super::super::Paint;
use super::super::client::{Client, ServerArgs};
use crate::edge::api::{Decisions, Status, TargetDetail, target_path};
use crate::model::TargetId;
use crate::runtime::clock::Stopwatch;

/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How long an answer may take before the connection counts as lost.
const DEADLINE: Duration = Duration::from_secs(3);

/// How many decisions of a target are shown.
const DECISIONS: usize = 50;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Fleet,
    Target(TargetId),
}

/// What came.
#[derive(Debug)]
pub(super) enum Answer {
    Fleet(Box<Status>),
    Target(Box<(TargetDetail, Decisions)>),
    Failed(String),
}

/// The thread that asks. It ends when this is dropped, after the question that is under way.
pub(super) struct Follow {
    subjects: Sender<Subject>,
    answers: Receiver<Answer>,
}

impl Follow {
    /// Starts it.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(server: &ServerArgs, first: Subject) -> std::io::Result<Self> {
        let (subjects, asked) = channel();
        // Two answers wait at most; an asker that is faster than the screen waits.
        let (answering, answers) = sync_channel(2);
        let client = Client::within(server, DEADLINE);
        // Not joined: a question under way must not keep the terminal for three seconds.
        std::thread::Builder::new().name("follow".to_owned()).spawn(move || ask(&client, first, &asked, &answering))?;
        Ok(Follow { subjects, answers })
    }

    /// Asks about something else from now on, and at once.
    pub(super) fn look_at(&self, subject: Subject) {
        // A thread that has ended answers nothing, which is shown.
        drop(self.subjects.send(subject));
    }
}

fn ask(client: &Client, mut subject: Subject, asked: &Receiver<Subject>, answering: &SyncSender<Answer>) {
    loop {
        let answer = match &subject {
            Subject::Fleet => client.get("/api/v1/status").map(|status| Answer::Fleet(Box::new(status))),
            Subject::Target(target) => {
                let path = target_path(target);
                client.get(&path).and_then(|detail| Ok(Answer::Target(Box::new((detail, client.get(&format!("{path}/decisions?limit={DECISIONS}"))?)))))
            }
        };
        if answering.send(answer.unwrap_or_else(|error| Answer::Failed(format!("{error:#}")))).is_err() {
            return;
        }
        match asked.recv_timeout(ASK_EVERY) {
            Ok(next) => subject = next,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // Of several the last.
        subject = asked.try_iter().last().unwrap_or(subject);
    }
}

/// What is known, and how old that is.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) status: Option<Box<Status>>,
    pub(super) target: Option<Box<(TargetDetail, Decisions)>>,
    came: Option<Stopwatch>,
    /// Why nothing comes, since when.
    lost: Option<(Stopwatch, String)>,
    /// For how long nothing had come before the last answer came, for a while after it.
    back: Option<(Stopwatch, Duration)>,
}

/// How long it is said that the connection is there again.
const BACK_SHOWN: Duration = Duration::from_secs(10);

impl Known {
    /// Takes what came.
    pub(super) fn take(&mut self, follow: &Follow) {
        follow.answers.try_iter().for_each(|answer| self.answer(answer));
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Fleet(status) => self.status = Some(status),
            Answer::Target(target) => self.target = Some(target),
            Answer::Failed(why) => {
                let since = self.lost.take().map_or_else(Stopwatch::start, |(since, _)| since);
                self.lost = Some((since, why));
                return;
            }
        }
        self.came = Some(Stopwatch::start());
        if let Some((since, _)) = self.lost.take() {
            self.back = Some((Stopwatch::start(), since.elapsed()));
        }
    }

    /// What is known of a target, where the last answer was about it.
    pub(super) fn of(&self, target: &TargetId) -> Option<&(TargetDetail, Decisions)> {
        self.target.as_deref().filter(|(detail, _)| detail.status.target == *target)
    }

    /// How it stands with the connection, in a line.
    pub(super) fn head(&self, server: &str, paint: Paint) -> String {
        let age = self.came.map_or_else(|| "nothing has come yet".to_owned(), |came| format!("updated {} s ago", came.elapsed().as_secs()));
        match (&self.lost, &self.back) {
            (Some((since, why)), _) => paint.red(&format!("! no connection for {} s, {age}; trying again: {why}", since.elapsed().as_secs())),
            (None, Some((at, lost))) if at.elapsed() < BACK_SHOWN => {
                paint.green(&format!("{server} · {age} · connected again, after {} s without", lost.as_secs()))
            }
            _ => paint.dim(&format!("{server} · {age}")),
        }
    }
}
