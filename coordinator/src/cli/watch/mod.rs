//! `watch`: a redrawn screen on a terminal, a line per change in a pipe, a document per change with `--json`. Ends with the rollout, or
//! with a pause under which nothing goes on any more; an approval that is waited for is shown and waited out.
//!
//! The coordinator sends a frame every second, changed or not. A viewer that has none for some seconds says so on what it shows.

mod lines;
mod silence;

pub use lines::Lines;

use super::Ended;
use super::client::{self, Client};
use super::output::{Lists, Output};
use super::status::{self, Paint};
use super::text::cut;
use crate::clock;
use crate::config::DataDir;
use crate::operator_api::documents::{EventsDocument, LiveStatus};
use crate::problem::Problems;
use crossterm::{cursor, execute, terminal};
use fleet_common::codes::exit;
use fleet_proto::EventsRequest;
use silence::Silence;
use std::time::{Duration, Instant};
use tokio_stream::StreamExt as _;

/// A coordinator that is being restarted is waited for this long.
const PATIENCE: Duration = Duration::from_secs(120);

pub async fn run(client: &mut Client, data: &DataDir, output: &Output) -> Ended {
    let mut view = View::new(output);
    let mut lost: Option<Instant> = None;
    let mut client = client.clone();
    loop {
        let ended = tokio::select! {
            ended = follow(&mut client, &mut view, &mut lost) => ended,
            _ = tokio::signal::ctrl_c() => Ok(exit::OK),
        };
        match ended {
            Err(problems) if problems.exit == exit::UNREACHABLE => {
                let since = *lost.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    view.close();
                    return Err(problems);
                }
                view.remark("the connection to the coordinator broke; waiting for it");
                let again = tokio::select! {
                    again = reconnect(data, &mut view) => again,
                    _ = tokio::signal::ctrl_c() => {
                        view.close();
                        return Ok(exit::OK);
                    }
                };
                client = again.unwrap_or(client);
            }
            ended => {
                view.close();
                return ended;
            }
        }
    }
}

/// A new connection, if there is one after a moment.
async fn reconnect(data: &DataDir, view: &mut View<'_>) -> Option<Client> {
    tokio::time::sleep(Duration::from_millis(500)).await;
    view.waiting(client::connect(data.socket())).await?.ok()
}

/// Follows one connection to its end.
async fn follow(client: &mut Client, view: &mut View<'_>, lost: &mut Option<Instant>) -> Ended {
    let asked = view.waiting(client.watch(client::empty())).await;
    let mut frames = asked
        .ok_or_else(silent)?
        .map_err(|status| client::refusal(&status))?
        .into_inner();
    let mut last: Option<LiveStatus> = None;
    while let Some(frame) = view.waiting(frames.next()).await.ok_or_else(silent)? {
        let document: LiveStatus = client::read(frame.map(tonic::Response::new))?;
        *lost = None;
        if view.wants_events() {
            let request = EventsRequest {
                after: view.lines.seen(),
                limit: 0,
            };
            let events = view.waiting(client.events(request)).await.ok_or_else(silent)?;
            let events: EventsDocument = client::read(events)?;
            let lines = view.lines.events(&events);
            view.print(&lines);
        }
        view.frame(&document);
        if view.output.is_unread() {
            return Ok(document.status.exit_code);
        }
        last = Some(document);
    }
    match last {
        Some(document) if document.status.at_rest => {
            view.last(&document);
            Ok(document.status.exit_code)
        }
        _ => Err(
            Problems::from(crate::problem::Problem::new("the coordinator ended the view"))
                .exit(exit::UNREACHABLE),
        ),
    }
}

/// A coordinator that keeps its connection and says nothing.
fn silent() -> Problems {
    let problem = crate::problem::Problem::new("the coordinator does not answer");
    Problems::from(problem).exit(exit::UNREACHABLE)
}

/// What the viewer sees.
struct View<'a> {
    output: &'a Output,
    screen: bool,
    open: bool,
    remarked: bool,
    lines: Lines,
    silence: Silence,
    /// The newest frame, drawn again with a mark while nothing comes.
    last: Option<LiveStatus>,
}

impl<'a> View<'a> {
    fn new(output: &'a Output) -> Self {
        Self {
            output,
            screen: !output.is_json() && output.is_terminal(),
            open: false,
            remarked: false,
            lines: Lines::default(),
            silence: Silence::new(Instant::now(), clock::now_ms()),
            last: None,
        }
    }

    fn wants_events(&self) -> bool {
        !self.screen && !self.output.is_json()
    }

    fn print(&self, lines: &[String]) {
        for line in lines {
            self.output.line(line);
        }
    }

    /// Waits for the coordinator, and says meanwhile that it is silent. `None` when it is for so long that the connection is made anew.
    async fn waiting<T>(&mut self, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = std::pin::pin!(answer);
        let end = tokio::time::Instant::now() + silence::GIVE_UP;
        while tokio::time::Instant::now() < end {
            if let Ok(answer) = tokio::time::timeout(silence::LOOK, &mut answer).await {
                return Some(answer);
            }
            if self.silence.is_long(Instant::now()) {
                self.remark("the coordinator does not answer; waiting for it");
            }
        }
        None
    }

    fn frame(&mut self, document: &LiveStatus) {
        self.remarked = false;
        self.silence = Silence::new(Instant::now(), clock::now_ms());
        if self.output.is_json() {
            self.output.json_line(document);
        } else if self.screen {
            self.draw(document, None);
            self.last = Some(document.clone());
        } else {
            let lines = self.lines.changes(document);
            self.print(&lines);
        }
    }

    fn draw(&mut self, document: &LiveStatus, mark: Option<&str>) {
        let (width, height) = self.output.size();
        let paint = Paint {
            colors: self.output.colors(),
        };
        let lines = framed(document, mark, (width, height), &paint);
        let mut frame = String::new();
        for line in &lines {
            frame.push_str(line);
            // Clears what an earlier, longer line left.
            frame.push_str("\u{1b}[K\r\n");
        }
        let mut stdout = std::io::stdout();
        if !self.open {
            self.open = true;
            // A terminal that can't do this shows the frames one after the other.
            let _ = execute!(stdout, terminal::EnterAlternateScreen, cursor::Hide);
        }
        let _ = execute!(stdout, cursor::MoveTo(0, 0));
        self.output.raw(&frame);
        let _ = execute!(stdout, terminal::Clear(terminal::ClearType::FromCursorDown));
    }

    /// On a screen the mark stands over what was seen last and counts on; elsewhere it is said once.
    fn remark(&mut self, text: &str) {
        if self.screen {
            let mark = self.silence.mark(Instant::now());
            match self.last.take() {
                Some(document) => {
                    self.draw(&document, Some(&mark));
                    self.last = Some(document);
                }
                None if !self.remarked => self.output.note(text),
                None => {}
            }
        } else if !self.remarked {
            self.output.note(text);
        }
        self.remarked = true;
    }

    /// The last frame stays on the ordinary screen.
    fn last(&mut self, document: &LiveStatus) {
        if self.output.is_json() {
            return;
        }
        self.close();
        let paint = Paint {
            colors: self.output.colors(),
        };
        self.output
            .line(&status::lines(document, self.output.width(), Lists::Folded, &paint).join("\n"));
    }

    fn close(&mut self) {
        if self.open {
            self.open = false;
            let _ = execute!(std::io::stdout(), cursor::Show, terminal::LeaveAlternateScreen);
        }
    }
}

/// What fits on a screen, below the mark if there is one.
fn framed(
    document: &LiveStatus,
    mark: Option<&str>,
    (width, height): (usize, usize),
    paint: &Paint,
) -> Vec<String> {
    let mut lines = status::lines(document, width, Lists::Folded, paint);
    if let Some(mark) = mark {
        lines.insert(0, paint.red(&cut(mark, width)));
    }
    if lines.len() >= height {
        lines.truncate(height.saturating_sub(2));
        lines.push("... (`pmm-coordinator status` shows all)".to_owned());
    }
    lines
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_that_is_old_says_so_in_its_first_line() {
        let document: LiveStatus = serde_json::from_str(include_str!("../fixtures/group.json")).unwrap();
        let paint = Paint { colors: false };
        let fresh = framed(&document, None, (80, 100), &paint);
        let old = framed(&document, Some("no answer since 22:00:00 UTC"), (80, 100), &paint);
        assert_eq!(old[0], "no answer since 22:00:00 UTC");
        assert_eq!(old[1..], fresh[..]);
        let small = framed(&document, Some("no answer"), (80, 5), &paint);
        assert_eq!((small.len(), small[0].as_str()), (4, "no answer"));
    }
}
