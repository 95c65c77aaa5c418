//! The server driver as a task of its own: it is given the kernel's orders, and what it reports comes back as messages. Polling PMM's
//! view goes the same way.

use super::handle::{EngineHandle, Message};
use crate::problem::Problems;
use fleet_common::codes::Code;
use fleet_common::hint::{Hint as _, chain};
use fleet_common::ids::OrderId;
use fleet_common::server::{HopOutcome, HopResult, ServerEvent, ServerOrder};
use fleet_common::verification::FleetSnapshot;
use pmm_driver::{Driver, DriverError};
use rollout::kernel::{NODES_EVERY_MS, ViewRequest};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A look at PMM takes a few requests; a hanging one must not stop the looking for good.
const VIEW_TIMEOUT: Duration = Duration::from_secs(120);

/// What the engine needs of a server driver. The tests have their own.
#[tonic::async_trait]
pub trait ServerDriver: Send + Sync {
    /// PMM's own view of the fleet, or of the nodes that are asked for.
    async fn snapshot(&self, request: &ViewRequest) -> Result<FleetSnapshot, DriverError>;
    /// Carries out or continues a hop; its last event is the result.
    async fn run_hop(
        &self,
        order: &ServerOrder,
        events: mpsc::Sender<ServerEvent>,
        cancel: CancellationToken,
    ) -> Result<HopResult, DriverError>;
    /// Lets a hop go back to where it started at its next safe point.
    fn give_up(&self, order: &OrderId);
}

#[tonic::async_trait]
impl ServerDriver for Driver {
    async fn snapshot(&self, request: &ViewRequest) -> Result<FleetSnapshot, DriverError> {
        match &request.nodes {
            Some(nodes) => Self::snapshot_of(self, nodes, request.qan_from_ms).await,
            None => Self::snapshot(self, request.qan_from_ms).await,
        }
    }

    async fn run_hop(
        &self,
        order: &ServerOrder,
        events: mpsc::Sender<ServerEvent>,
        cancel: CancellationToken,
    ) -> Result<HopResult, DriverError> {
        Self::run_hop(self, order, events, cancel).await
    }

    fn give_up(&self, order: &OrderId) {
        Self::give_up(self, order);
    }
}

/// Makes the driver of a stored fleet file again after a restart.
pub trait Drivers: Send + Sync {
    /// The driver of the server in this fleet file.
    fn of_fleet(&self, path: &str, text: &[u8]) -> Result<Arc<dyn ServerDriver>, Problems>;
}

/// The server of one rollout.
pub struct ServerLeg {
    driver: Option<Arc<dyn ServerDriver>>,
    running: Option<OrderId>,
    /// Given once more while it was running: its result may not have been stored, so it is asked for again.
    again: Option<ServerOrder>,
    /// Stops the task of the running order.
    stop: CancellationToken,
    fleet: Looking,
    nodes: Looking,
}

/// Looks of one kind, one after the other. A slow look at the fleet keeps nobody from being verified.
#[derive(Default)]
struct Looking {
    under_way: bool,
    began_at: Option<Instant>,
    last_error: Option<String>,
}

impl ServerLeg {
    pub fn new(driver: Option<Arc<dyn ServerDriver>>) -> Self {
        Self {
            driver,
            running: None,
            again: None,
            stop: CancellationToken::new(),
            fleet: Looking::default(),
            nodes: Looking::default(),
        }
    }

    /// Carries out or continues a hop. An order that is under way already goes on, and is asked for its result once more at its end.
    pub fn run(&mut self, order: ServerOrder, engine: &EngineHandle, stop: &CancellationToken) {
        if self.running.as_ref() == Some(&order.order) {
            self.again = Some(order);
            return;
        }
        let Some(driver) = self.driver.clone() else {
            tracing::error!(order = %order.order, "the order waits: there is no way to the server");
            return;
        };
        self.running = Some(order.order.clone());
        self.stop = stop.child_token();
        tokio::spawn(carry_out(driver, order, engine.clone(), self.stop.clone()));
    }

    /// An order should go back.
    pub fn cancel(&self, order: &OrderId) {
        tracing::warn!(%order, "the hop under way goes back at its next safe point");
        if let Some(driver) = &self.driver {
            driver.give_up(order);
        }
    }

    /// The rollout is over and another one begins: what is under way stops where it stands, its journal stays open, and the next order
    /// brings it to an end.
    pub fn release(&self) {
        self.stop.cancel();
    }

    /// Takes over what an earlier memory of the same rollout had under way.
    pub fn inherit(&mut self, earlier: Self) {
        self.running = earlier.running;
        self.stop = earlier.stop;
        self.again = earlier.again;
        self.driver = earlier.driver.or(self.driver.take());
        self.fleet = earlier.fleet;
        self.nodes = earlier.nodes;
    }

    /// The task of an order ended.
    pub fn ended(&mut self, order: &OrderId, engine: &EngineHandle, stop: &CancellationToken) {
        if self.running.as_ref() != Some(order) {
            return;
        }
        self.running = None;
        if let Some(again) = self.again.take() {
            self.run(again, engine, stop);
        }
    }

    /// Looks at the whole fleet. The kernel says when; while the last look is under way still, its answer has to do.
    pub fn look_at_fleet(&mut self, request: ViewRequest, engine: &EngineHandle) {
        if let Some(driver) = self.driver.clone().filter(|_| !self.fleet.under_way) {
            self.fleet.begin(driver, request, engine.clone());
        }
    }

    /// Looks at the nodes that the kernel wants to see, if it is time.
    pub fn look_at_nodes(&mut self, wanted: Option<&ViewRequest>, engine: &EngineHandle) {
        let every = Duration::from_millis(NODES_EVERY_MS);
        let early = self.nodes.began_at.is_some_and(|at| at.elapsed() < every);
        if let (Some(request), Some(driver), false) =
            (wanted, self.driver.clone(), early || self.nodes.under_way)
        {
            self.nodes.begin(driver, request.clone(), engine.clone());
        }
    }

    /// A look ended; tells when the reason for failing is new.
    pub fn looked<T>(&mut self, at_fleet: bool, view: &Result<T, String>) {
        let looking = if at_fleet {
            &mut self.fleet
        } else {
            &mut self.nodes
        };
        looking.under_way = false;
        let error = view.as_ref().err().cloned();
        if let Some(reason) = error.as_ref().filter(|_| error != looking.last_error) {
            tracing::warn!(%reason, "PMM's view is not available; asking again");
        }
        looking.last_error = error;
    }
}

impl Looking {
    fn begin(&mut self, driver: Arc<dyn ServerDriver>, request: ViewRequest, engine: EngineHandle) {
        self.under_way = true;
        self.began_at = Some(Instant::now());
        tokio::spawn(async move {
            let view = match tokio::time::timeout(VIEW_TIMEOUT, driver.snapshot(&request)).await {
                Ok(Ok(snapshot)) => Ok(snapshot),
                Ok(Err(error)) => Err(chain(&error)),
                Err(_) => Err("PMM did not answer within 120 s".to_owned()),
            };
            let at_fleet = request.nodes.is_none();
            engine.send(Message::View { at_fleet, view }).await;
        });
    }
}

async fn carry_out(
    driver: Arc<dyn ServerDriver>,
    order: ServerOrder,
    engine: EngineHandle,
    stop: CancellationToken,
) {
    let id = order.order.clone();
    let (events, mut reported) = mpsc::channel(64);
    let forward = {
        let (engine, id) = (engine.clone(), id.clone());
        tokio::spawn(async move {
            while let Some(event) = reported.recv().await {
                engine
                    .send(Message::Server {
                        order: id.clone(),
                        event,
                    })
                    .await;
            }
        })
    };
    let result = driver.run_hop(&order, events, stop).await;
    // The sender is gone with the hop, so this ends once everything was passed on.
    if let Err(error) = forward.await {
        tracing::error!(%error, "events of the server driver were lost");
    }
    match result {
        Ok(_) | Err(DriverError::Cancelled) => {}
        Err(error) => {
            tracing::error!(order = %id, error = %chain(&error), "the server driver could not decide anything");
            let event = ServerEvent::Finished(undecided(&order, &error));
            engine
                .send(Message::Server {
                    order: id.clone(),
                    event,
                })
                .await;
        }
    }
    engine.send(Message::ServerEnded(id)).await;
}

/// The journal can't be written or belongs to another order: only a person can go on.
fn undecided(order: &ServerOrder, error: &DriverError) -> HopResult {
    HopResult {
        outcome: HopOutcome::NeedsOperator,
        from: order.from,
        running: None,
        code: Code::new(error.code().as_str()),
        step: String::new(),
        message: chain(error),
        hints: error.hints(),
        restore_point: None,
        downtime_ms: 0,
        open: false,
        leftovers: Vec::new(),
    }
}
