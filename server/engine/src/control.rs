//! The reconciler at work: a thread that follows the repository and does what operators ask for.

mod canaries;
mod looks;

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, after, select, unbounded};
use tokio::sync::oneshot;

use crate::doubt::Doubt;
pub use crate::error::ControlError;
use crate::managed::{Managed, ModelDetails};
use crate::reconcile::{LoadReport, Reconciler};
use crate::registry::{HandedOver, PassedOver, Registry, RegistryError};
pub use crate::route_table::{
    ArmDetails, CanaryDetails, CanaryEvent, RouteDetails, ShadowCounts, ShadowDetails,
};
use crate::routing::{Route, Weight};

/// How a repository is followed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Following {
    /// The repository is read again after this time, beside when [`Control::look`] says so; never if `None`.
    pub poll_interval: Option<Duration>,
    /// How soon to look again at files that may still be written to.
    pub settle: Duration,
    /// Models may be loaded and unloaded while the server runs.
    pub takes_orders: bool,
}

/// What operators ask a running server. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    commands: Sender<Command>,
}

/// The thread behind a [`Control`]; ends by [`Control::shut_down`].
pub struct Loop {
    thread: JoinHandle<()>,
}

/// How the first loads went, once they have ended.
pub type Started = oneshot::Receiver<Result<Vec<LoadReport>, RegistryError>>;

/// A copy is many changes: they are looked at together.
const LOOK_DELAY: Duration = Duration::from_millis(20);

/// Longest that the start waits for files that are written to without end.
const FIRST_SETTLE_MAX: Duration = Duration::from_secs(10);

type Answer<T> = oneshot::Sender<Result<T, ControlError>>;

enum Command {
    Look,
    Load { model: String, contents: Option<HandedOver>, answer: Answer<()> },
    Unload { model: String, answer: Answer<()> },
    SetLabel { model: String, label: String, version: Option<u64>, answer: Answer<()> },
    RollBack { model: String, why: String, answer: Answer<(u64, u64)> },
    Describe { model: String, answer: Answer<ModelDetails> },
    Routes { answer: Answer<Vec<RouteDetails>> },
    SetRoute { route: Box<Route>, answer: Answer<RouteDetails> },
    Weigh { route: String, arm: Option<String>, weight: Weight, answer: Answer<RouteDetails> },
    ShutDown { answer: oneshot::Sender<()> },
}

/// What the thread works with.
struct Worker {
    reconciler: Reconciler,
    registry: Box<dyn Registry>,
    following: Following,
    commands: Receiver<Command>,
    /// Loads whose end somebody waits for.
    waiting: Vec<Waiting>,
    looked: Instant,
    /// When to look because the repository is said to have changed.
    look_at: Option<Instant>,
    /// When canaries are judged next.
    judge_at: Instant,
    doubt: Doubt,
    /// When to look again at a repository that has lost all of its models.
    doubted_until: Option<Instant>,
}

struct Waiting {
    model: String,
    /// Contents came with the order: if they cannot be served, all is to be as before.
    has_contents: bool,
    was_asked_for: bool,
    answer: Answer<()>,
}

// === impl Control ===

impl Control {
    /// Starts a thread that loads what `registry` has, reports how that went, and keeps up with it from then on.
    /// It ends at once when the registry cannot be read to begin with.
    ///
    /// # Errors
    /// The system does not grant a thread.
    pub fn start(
        reconciler: Reconciler,
        registry: Box<dyn Registry>,
        following: Following,
    ) -> std::io::Result<(Control, Loop, Started)> {
        let (sender, commands) = unbounded();
        let (started, reports) = oneshot::channel();
        let worker = Worker {
            reconciler,
            registry,
            following,
            commands,
            waiting: Vec::new(),
            looked: Instant::now(),
            look_at: None,
            judge_at: Instant::now(),
            doubt: Doubt::default(),
            doubted_until: None,
        };
        let thread =
            std::thread::Builder::new().name("reconcile".into()).spawn(move || worker.run(started))?;
        Ok((Control { commands: sender }, Loop { thread }, reports))
    }

    /// The repository may have changed.
    pub fn look(&self) {
        // A loop that has ended follows nothing any more.
        let _ended = self.commands.send(Command::Look);
    }

    /// Loads a model now, whatever was unloaded, rolled back or failed before, and waits for the outcome.
    /// `contents` are served instead of what the repository has under that name, until it is loaded without
    /// any or unloaded; when they cannot be served, what was served before goes on.
    ///
    /// # Errors
    /// The model is unknown, or one of the versions that ought to serve cannot, or the contents are at fault.
    pub async fn load(&self, model: &str, contents: Option<HandedOver>) -> Result<(), ControlError> {
        self.ask(|answer| Command::Load { model: model.to_owned(), contents, answer }).await
    }

    /// Takes a model out of service; what was admitted is answered. It stays out until it is loaded again.
    ///
    /// # Errors
    /// The model is unknown, or no orders are taken.
    pub async fn unload(&self, model: &str) -> Result<(), ControlError> {
        self.ask(|answer| Command::Unload { model: model.to_owned(), answer }).await
    }

    /// Points a label at a version, or takes it away.
    ///
    /// # Errors
    /// The model or the version is unknown, or the label is a number.
    pub async fn set_label(
        &self,
        model: &str,
        label: &str,
        version: Option<u64>,
    ) -> Result<(), ControlError> {
        let (model, label) = (model.to_owned(), label.to_owned());
        self.ask(|answer| Command::SetLabel { model, label, version, answer }).await
    }

    /// Goes back to the version that was served by default before; returns both versions.
    ///
    /// # Errors
    /// No such version is loaded.
    pub async fn roll_back(&self, model: &str, why: &str) -> Result<(u64, u64), ControlError> {
        let (model, why) = (model.to_owned(), why.to_owned());
        self.ask(|answer| Command::RollBack { model, why, answer }).await
    }

    /// # Errors
    /// The model is unknown.
    pub async fn describe(&self, model: &str) -> Result<ModelDetails, ControlError> {
        self.ask(|answer| Command::Describe { model: model.to_owned(), answer }).await
    }

    /// All routes, by name.
    ///
    /// # Errors
    /// The server is shutting down.
    pub async fn routes(&self) -> Result<Vec<RouteDetails>, ControlError> {
        self.ask(|answer| Command::Routes { answer }).await
    }

    /// Puts a route in force, in place of the one of its name if there is one, and has the registry keep it.
    ///
    /// # Errors
    /// The route cannot be, or cannot be kept; then everything is as before.
    pub async fn set_route(&self, route: Route) -> Result<RouteDetails, ControlError> {
        self.ask(|answer| Command::SetRoute { route: Box::new(route), answer }).await
    }

    /// Gives an arm this weight; the others share the rest in proportion to what they had.
    ///
    /// # Errors
    /// As [`Control::set_route`], and the route or the arm is unknown.
    pub async fn promote(
        &self,
        route: &str,
        arm: &str,
        weight: Weight,
    ) -> Result<RouteDetails, ControlError> {
        let (route, arm) = (route.to_owned(), Some(arm.to_owned()));
        self.ask(|answer| Command::Weigh { route, arm, weight, answer }).await
    }

    /// Gives the first arm, the control, everything.
    ///
    /// # Errors
    /// As [`Control::promote`].
    pub async fn abort(&self, route: &str) -> Result<RouteDetails, ControlError> {
        let route = route.to_owned();
        self.ask(|answer| Command::Weigh { route, arm: None, weight: Weight::ALL, answer }).await
    }

    /// Stops admission, finishes what was admitted, frees every session and ends the thread.
    pub async fn shut_down(&self, ended: Loop) {
        let (answer, done) = oneshot::channel();
        if self.commands.send(Command::ShutDown { answer }).is_ok() {
            // An error means that the thread has panicked, which the join below tells.
            let _done = done.await;
        }
        if ended.thread.join().is_err() {
            tracing::error!("the thread that reconciles had panicked");
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, ControlError> {
        let (answer, result) = oneshot::channel();
        let ended = || ControlError::Refused("the server is shutting down".into());
        self.commands.send(command(answer)).map_err(|_| ended())?;
        result.await.map_err(|_| ended())?
    }
}

// === impl Worker ===

impl Worker {
    fn run(mut self, started: oneshot::Sender<Result<Vec<LoadReport>, RegistryError>>) {
        let reports = self.load_first();
        let has_failed = reports.is_err();
        if started.send(reports).is_err() || has_failed {
            return self.reconciler.shut_down();
        }
        let results = self.reconciler.results.clone();
        let commands = self.commands.clone();
        loop {
            let timeout = self.timeout(Instant::now());
            select! {
                recv(commands) -> command => match command {
                    Ok(Command::ShutDown { answer }) => {
                        self.reconciler.shut_down();
                        // Nobody waits for it only when the server ends by force.
                        let _ended = answer.send(());
                        return;
                    }
                    // A file that is being copied is a flood of these.
                    Ok(Command::Look) => {
                        let now = Instant::now();
                        self.look_at.get_or_insert(now + LOOK_DELAY);
                        if !self.is_time_to_look(now) {
                            continue;
                        }
                    }
                    Ok(command) => self.obey(command),
                    Err(_disconnected) => return self.reconciler.shut_down(),
                },
                recv(results) -> done => {
                    let done = done.expect("the reconciler holds a sender; this is a bug");
                    self.reconciler.finish(done);
                    // A step looks at all models: one for what has ended meanwhile.
                    self.reconciler.finish_all();
                }
                default(timeout) => {}
            }
            if self.is_time_to_look(Instant::now()) {
                self.look();
            }
            self.judge_canaries(Instant::now());
            self.reconciler.step(Instant::now());
            self.answer_loads();
        }
    }

    /// Loads what the repository has to begin with. Files that were written to a moment ago are waited for: a
    /// server that is started right after its models were copied says that it has started when it has them.
    fn load_first(&mut self) -> Result<Vec<LoadReport>, RegistryError> {
        let deadline = Instant::now() + FIRST_SETTLE_MAX;
        let mut reports = BTreeMap::new();
        loop {
            let loaded = self.reconciler.load(self.registry.desired()?);
            // A model whose versions could not be told may have them now.
            reports.retain(|&(_, version), _| version != 0);
            reports.extend(loaded.into_iter().map(|report| ((report.model.clone(), report.version), report)));
            let mut models = self.reconciler.models.values();
            let waits = self.reconciler.routes.is_changing()
                || models.any(|managed| managed.is_asked_for && managed.is_changing());
            if !waits || Instant::now() >= deadline {
                self.reconciler.end_start();
                return Ok(reports.into_values().collect());
            }
            let _time = after(self.following.settle.max(LOOK_DELAY)).recv();
        }
    }

    fn obey(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Load { model, contents, answer } => self.load(model, contents, answer, now),
            Command::Unload { model, answer } => {
                let result = self.check_orders().and_then(|()| self.managed(&model));
                let result = result.map(|managed| managed.is_asked_for = false);
                if result.is_ok() {
                    self.registry.take_back(&model);
                    self.look();
                }
                self.publish_and_reply(answer, result, now);
            }
            Command::SetLabel { model, label, version, answer } => {
                let result = self
                    .managed(&model)
                    .and_then(|managed| managed.set_label(&label, version).map_err(ControlError::Refused));
                self.publish_and_reply(answer, result, now);
            }
            Command::RollBack { model, why, answer } => {
                let result = self
                    .managed(&model)
                    .and_then(|managed| managed.roll_back(&why, now).map_err(ControlError::Refused));
                self.publish_and_reply(answer, result, now);
            }
            Command::Describe { model, answer } => {
                let result = self.managed(&model).map(|managed| managed.details());
                reply(answer, result);
            }
            Command::Routes { answer } => {
                let Reconciler { routes, models, .. } = &self.reconciler;
                reply(answer, Ok(routes.details(models, now)));
            }
            Command::SetRoute { route, answer } => {
                self.look();
                let result = self.set_route(*route);
                self.publish_and_reply(answer, result, now);
            }
            Command::Weigh { route, arm, weight, answer } => {
                self.look();
                let weighed = self.reconciler.routes.weigh(&route, arm.as_deref(), weight);
                let result = weighed.and_then(|route| self.set_route(route));
                self.publish_and_reply(answer, result, now);
            }
            Command::Look | Command::ShutDown { .. } => {
                unreachable!("the loop takes this itself; this is a bug")
            }
        }
    }

    /// Kept first and in force then: whoever is told that a route is in force finds it again after a restart.
    fn set_route(&mut self, route: Route) -> Result<RouteDetails, ControlError> {
        let name = route.name.clone();
        let Reconciler { routes, models, .. } = &self.reconciler;
        let table = routes.with(route, models)?;
        self.registry.keep_routes(&table)?;
        self.reconciler.routes.all_written();
        self.reconciler.take_routes(table);
        let Reconciler { routes, models, .. } = &self.reconciler;
        let mut details = routes.details(models, Instant::now()).into_iter();
        let of_route = details.find(|details| details.route.name == name);
        Ok(of_route.expect("the table was taken over with it; this is a bug"))
    }

    fn load(&mut self, model: String, contents: Option<HandedOver>, answer: Answer<()>, now: Instant) {
        if let Err(error) = self.check_orders() {
            return reply(answer, Err(error));
        }
        let has_contents = contents.is_some();
        match contents {
            Some(contents) => {
                if let Err(error) = self.registry.hand_over(&model, contents) {
                    return reply(answer, Err(error));
                }
            }
            None => self.registry.prefer_own(&model),
        }
        self.look();
        match self.managed(&model) {
            Ok(managed) => {
                let was_asked_for = managed.is_asked_for;
                managed.ask_again(now);
                self.waiting.push(Waiting { model, has_contents, was_asked_for, answer });
            }
            Err(error) => reply(answer, Err(error)),
        }
    }

    fn check_orders(&self) -> Result<(), ControlError> {
        if self.following.takes_orders {
            return Ok(());
        }
        let text = "models are neither loaded nor unloaded while this server runs: start it with another \
                    --model-control than none";
        Err(ControlError::Refused(text.into()))
    }

    /// Who has asked finds it done.
    fn publish_and_reply<T>(&mut self, answer: Answer<T>, result: Result<T, ControlError>, now: Instant) {
        self.reconciler.step(now);
        reply(answer, result);
    }

    fn managed(&mut self, model: &str) -> Result<&mut Managed, ControlError> {
        let Reconciler { models, passed_over, .. } = &mut self.reconciler;
        models.get_mut(model).ok_or_else(|| {
            let text = format!("model '{model}' is not in the repository");
            let is_meant = |one: &&PassedOver| one.directory == model && one.version.is_none();
            ControlError::NotFound(match passed_over.iter().find(is_meant) {
                Some(one) => format!("{text}: {}", one.reason),
                None => text,
            })
        })
    }

    /// Answers those whose model has nothing left to be done.
    fn answer_loads(&mut self) {
        let now = Instant::now();
        for waiting in std::mem::take(&mut self.waiting) {
            let model = &waiting.model;
            let result = match self.reconciler.models.get(model) {
                Some(managed) if managed.is_busy(now) => {
                    self.waiting.push(waiting);
                    continue;
                }
                Some(managed) => match (managed.fault(), managed.serves()) {
                    (Some(fault), _) => {
                        Err(ControlError::Failed(format!("failed to load '{model}', {fault}")))
                    }
                    (None, true) => Ok(()),
                    (None, false) => Err(ControlError::Failed(format!(
                        "failed to load '{model}', none of its versions is served"
                    ))),
                },
                None => Err(ControlError::NotFound(format!("model '{model}' is not in the repository"))),
            };
            if waiting.has_contents {
                self.registry.conclude(model, result.is_ok());
                if result.is_err() {
                    if let Some(managed) = self.reconciler.models.get_mut(model) {
                        managed.is_asked_for = waiting.was_asked_for;
                    }
                    self.look();
                    self.reconciler.step(now);
                }
            }
            reply(waiting.answer, result);
        }
    }
}

fn reply<T>(answer: Answer<T>, result: Result<T, ControlError>) {
    // Whoever asked may have gone; what was asked for is done.
    let _gone = answer.send(result);
}
