//! `watch`: a redrawn screen on a terminal, a line per change in a pipe, a document per change with `--json`. Ends with the rollout, or
//! when it waits for a person.

mod lines;

pub use lines::Lines;

use super::Ended;
use super::client::{self, Client};
use super::output::{Lists, Output};
use super::status::{self, Paint};
use crate::config::DataDir;
use crate::operator_api::documents::{EventsDocument, LiveStatus};
use crate::problem::Problems;
use crossterm::{cursor, execute, terminal};
use fleet_common::codes::exit;
use fleet_proto::EventsRequest;
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
                tokio::time::sleep(Duration::from_millis(500)).await;
                if let Ok(again) = client::connect(data.socket()).await {
                    client = again;
                }
            }
            ended => {
                view.close();
                return ended;
            }
        }
    }
}

/// Follows one connection to its end.
async fn follow(client: &mut Client, view: &mut View<'_>, lost: &mut Option<Instant>) -> Ended {
    let mut frames = client
        .watch(client::empty())
        .await
        .map_err(|status| client::refusal(&status))?
        .into_inner();
    let mut last: Option<LiveStatus> = None;
    while let Some(frame) = frames.next().await {
        let document: LiveStatus = client::read(frame.map(tonic::Response::new))?;
        *lost = None;
        if view.wants_events() {
            let request = EventsRequest {
                after: view.lines.seen(),
                limit: 0,
            };
            let events: EventsDocument = client::read(client.events(request).await)?;
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

/// What the viewer sees.
struct View<'a> {
    output: &'a Output,
    screen: bool,
    open: bool,
    remarked: bool,
    lines: Lines,
}

impl<'a> View<'a> {
    fn new(output: &'a Output) -> Self {
        Self {
            output,
            screen: !output.is_json() && output.is_terminal(),
            open: false,
            remarked: false,
            lines: Lines::default(),
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

    fn frame(&mut self, document: &LiveStatus) {
        self.remarked = false;
        if self.output.is_json() {
            self.output.json_line(document);
        } else if self.screen {
            self.draw(document);
        } else {
            let lines = self.lines.changes(document);
            self.print(&lines);
        }
    }

    fn draw(&mut self, document: &LiveStatus) {
        let (width, height) = self.output.size();
        let paint = Paint {
            colors: self.output.colors(),
        };
        let mut lines = status::lines(document, width, Lists::Folded, &paint);
        if lines.len() >= height {
            lines.truncate(height.saturating_sub(2));
            lines.push("... (`pmm-coordinator status` shows all)".to_owned());
        }
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

    fn remark(&mut self, text: &str) {
        if !self.remarked && !self.screen {
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

impl Drop for View<'_> {
    fn drop(&mut self) {
        self.close();
    }
}
