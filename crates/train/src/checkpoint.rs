//! Checkpoints: `DIR/checkpoints/step-N/`, what `--resume` needs and nothing more.
//!
//! ```text
//! step-20/model.mpk            the module's Params: the adapter, never the frozen base
//! step-20/optimizer.mpk        moments of the gradients
//! step-20/scheduler.mpk        updates done
//! step-20/trainer_state.json   TrainerState
//! step-20/checksums.xxh128     of the four files
//! ```
//!
//! Records are full precision (Burn's compact recorder would store moments as f16). A folder gets
//! its name only when all of it is on the disk: `step-N` is complete or is not there. Damage that comes later is
//! noticed by the checksums.

mod save;
mod state;

pub(crate) use save::StepCheckpointer;
pub use state::{BestEval, TrainerState};
pub(crate) use state::{Totals, exact};

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::record::{FullPrecisionSettings, NamedMpkBytesRecorder, Record, Recorder};
use burn::tensor::backend::Backend;
use burn::tensor::{Device, Tensor};
use burn_peft::PeftModel;
use burn_peft_data::TextTokenizer;
use burn_peft_decoder::Decoder;
use burn_peft_files::{CHECKSUMS_FILE, Checksums, Error as FileError, if_exists};
use burn_peft_ops::Ops;
use burn_train::{
    Learner, LearnerModelRecord, LearnerOptimizerRecord, LearnerSchedulerRecord,
    LearningComponentsTypes, TrainingBackend,
};

use crate::identity::{Difference, RunIdentity};
use crate::{Error, Method, Plan, Start, Trainee};

pub(crate) const MODEL: &str = "model";
pub(crate) const OPTIMIZER: &str = "optimizer";
pub(crate) const SCHEDULER: &str = "scheduler";
pub(crate) const STATE: &str = "trainer_state.json";

type Format = NamedMpkBytesRecorder<FullPrecisionSettings>;

/// A complete checkpoint on the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// What the run knew.
    pub state: TrainerState,
}

impl Checkpoint {
    /// The newest whole checkpoint of the run in `output_dir`. `damaged` is told what is wrong with newer ones.
    ///
    /// # Errors
    /// [`Error::NoCheckpoint`] where there is none, and what is wrong with the newest where none is whole.
    pub fn latest(output_dir: &Path, damaged: &mut dyn FnMut(&Error)) -> Result<Self, Error> {
        burn_peft_files::restore_replaced(&folder(output_dir))?;
        Self::newest(output_dir, damaged)
    }

    /// As [`latest`](Self::latest), but changes nothing: what a process set aside that ended while it replaced a
    /// checkpoint is not put back.
    pub(crate) fn newest(
        output_dir: &Path,
        damaged: &mut dyn FnMut(&Error),
    ) -> Result<Self, Error> {
        let mut newest = None;
        for (_, path) in steps_in(&folder(output_dir))?.into_iter().rev() {
            match Self::open(&path) {
                Ok(checkpoint) => {
                    newest.iter().for_each(damaged);
                    return Ok(checkpoint);
                }
                Err(error) => newest = newest.or(Some(error)),
            }
        }
        Err(newest.unwrap_or_else(|| Error::NoCheckpoint {
            dir: folder(output_dir),
        }))
    }

    /// Makes sure that `output_dir` holds no checkpoint that a new run would mix with its own.
    ///
    /// # Errors
    /// [`Error::OutputInUse`] where it does.
    pub fn none_in(output_dir: &Path) -> Result<(), Error> {
        let dir = folder(output_dir);
        match steps_in(&dir)?.is_empty() {
            true => Ok(()),
            false => Err(Error::OutputInUse { dir }),
        }
    }

    /// The checkpoint in a `step-N` folder.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::BadCheckpoint`] where a part of it is missing or damaged, or where it is of another
    /// step than its name says.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let bad = |path: PathBuf, message: String| Error::BadCheckpoint { path, message };
        let list = path.join(CHECKSUMS_FILE);
        let checksums = Checksums::read(path)?.ok_or_else(|| {
            let message =
                "it is missing; an older version saved this checkpoint, or it is not whole";
            bad(list.clone(), message.into())
        })?;
        let parts = [MODEL, OPTIMIZER, SCHEDULER].map(|part| format!("{part}.mpk"));
        for name in parts.iter().map(String::as_str).chain([STATE]) {
            if checksums.get(name).is_none() {
                return Err(bad(list, format!("it does not have {name}")));
            }
        }
        checksums.verify(path)?;
        let file = path.join(STATE);
        let text = burn_peft_files::read_to_string(&file)?;
        let state: TrainerState = match serde_json::from_str(&text) {
            Ok(state) => state,
            Err(error) => return Err(bad(file, error.to_string())),
        };
        match step_of(path) {
            Some(step) if step != state.step => Err(bad(
                file,
                format!(
                    "it is of step {}, and its folder of step {step}",
                    state.step
                ),
            )),
            _ => Ok(Self {
                path: path.into(),
                state,
            }),
        }
    }

    /// Puts the saved parameters into `model`, as for evaluating a checkpoint.
    ///
    /// # Errors
    /// [`Error::ResumeMismatch`] where a parameter has another name or shape, and as [`open`](Self::open).
    pub fn load_model<B: Backend, M: Module<B>>(
        &self,
        model: M,
        device: &Device<B>,
    ) -> Result<M, Error> {
        self.check_parameters::<B, M>(&model)?;
        Ok(model.load_record(self.read::<B, M::Record>(MODEL, device)?))
    }

    /// The best evaluation so far, where it is of an earlier step.
    pub(crate) fn best_before(&self) -> Option<&BestEval> {
        let best = self.state.best.best.as_ref();
        best.filter(|best| best.step != self.state.step)
    }

    /// The checkpoint of the best evaluation of the run in `output_dir`.
    ///
    /// # Errors
    /// [`Error::BestLost`] where it is missing or damaged.
    pub(crate) fn best(output_dir: &Path, best: &BestEval) -> Result<Self, Error> {
        let path = folder(output_dir).join(format!("step-{}", best.step));
        Self::open(&path).map_err(|error| Error::BestLost {
            step: best.step,
            reason: error.to_string(),
        })
    }

    /// The model that was saved: `base` with the method's own module, as it was trained.
    ///
    /// # Errors
    /// As [`load_model`](Self::load_model), and where the module cannot be made.
    pub fn load_adapter<B: Ops, M: Method>(
        &self,
        method: &M,
        base: Decoder<B>,
        tokenizer: &TextTokenizer,
    ) -> Result<PeftModel<B, M::Adapter<B>>, Error> {
        let device = base.device();
        let start = Start {
            base: &base,
            tokenizer,
            seed: self.state.seed,
        };
        let adapter = method.init(start)?;
        let trainee = Trainee::new(PeftModel::new(base, adapter));
        Ok(self.load_model(trainee, &device)?.into_model())
    }

    /// Puts the saved parameters in the place of the learner's, and leaves everything else.
    pub(crate) fn restore_model<LC: LearningComponentsTypes>(
        &self,
        learner: &mut Learner<LC>,
        device: &Device<TrainingBackend<LC>>,
    ) -> Result<(), Error> {
        self.check_parameters::<TrainingBackend<LC>, _>(&learner.model())?;
        learner.load_model(self.read::<_, LearnerModelRecord<LC>>(MODEL, device)?);
        Ok(())
    }

    /// Puts model, optimizer and scheduler back to where they were: the model first, because the
    /// optimizer's state is keyed by parameter ids, which come with the model's record.
    pub(crate) fn restore<LC: LearningComponentsTypes>(
        &self,
        learner: &mut Learner<LC>,
        device: &Device<TrainingBackend<LC>>,
    ) -> Result<(), Error> {
        self.restore_model(learner, device)?;
        learner.load_optim(self.read::<_, LearnerOptimizerRecord<LC>>(OPTIMIZER, device)?);
        learner.load_scheduler(self.read::<_, LearnerSchedulerRecord<LC>>(SCHEDULER, device)?);
        Ok(())
    }

    /// Refuses to go on as another run. Returns a sentence for each change that is none.
    pub(crate) fn check_run(&self, run: &RunIdentity, plan: &Plan) -> Result<Vec<String>, Error> {
        let found = self.state.run.differences(run)?;
        if !found.refused.is_empty() {
            return Err(Error::ResumeMismatch {
                path: self.path.clone(),
                differences: found.refused,
            });
        }
        let (done, planned) = (self.state.step, plan.total_steps);
        if done > planned {
            let (done, planned) = (format!("{done} already"), planned.to_string());
            return self
                .same("the number of steps", done, planned)
                .map(|()| Vec::new());
        }
        // The rows are the same, but a caller of `fit` brings its own loader.
        self.same(
            "the number of steps of an epoch",
            self.state.steps_per_epoch,
            plan.steps_per_epoch,
        )?;
        let changed = found
            .changed
            .iter()
            .map(|difference| format!("changed: {difference}"));
        let risky = found.risky.iter().map(|difference| {
            format!("warning: {difference}; the run may end in slightly other numbers than without a stop")
        });
        Ok(changed.chain(risky).collect())
    }

    pub(crate) fn check_parameters<B: Backend, M: Module<B>>(
        &self,
        model: &M,
    ) -> Result<(), Error> {
        let (saved, own) = (&self.state.parameters, parameter_shapes::<B, M>(model));
        for (name, shape) in saved {
            let what = format!("the shape of {name}");
            let Some(found) = own.get(name) else {
                // Older versions had other names for the parameters of some methods.
                let what = format!("{what} (another method, or an older version, saved it)");
                return self.same(&what, format!("{shape:?}"), "absent".into());
            };
            self.same(&what, format!("{shape:?}"), format!("{found:?}"))?;
        }
        match own.keys().find(|name| !saved.contains_key(*name)) {
            Some(name) => self.same(name, "absent", "a parameter"),
            None => Ok(()),
        }
    }

    fn same<T: ToString + PartialEq>(&self, what: &str, saved: T, found: T) -> Result<(), Error> {
        if saved == found {
            return Ok(());
        }
        Err(Error::ResumeMismatch {
            path: self.path.clone(),
            differences: vec![Difference {
                what: what.into(),
                saved: saved.to_string(),
                found: found.to_string(),
            }],
        })
    }

    fn read<B: Backend, R: Record<B>>(&self, part: &str, device: &Device<B>) -> Result<R, Error> {
        let path = self.path.join(format!("{part}.mpk"));
        let bytes = burn_peft_files::read(&path)?;
        Recorder::<B>::load(&Format::default(), bytes, device).map_err(|error| {
            Error::BadCheckpoint {
                path,
                message: error.to_string(),
            }
        })
    }
}

/// Where a run keeps its checkpoints.
pub(crate) fn folder(output_dir: &Path) -> PathBuf {
    output_dir.join("checkpoints")
}

/// The complete checkpoints in a folder, oldest step first.
pub(crate) fn steps_in(folder: &Path) -> Result<Vec<(usize, PathBuf)>, Error> {
    let entries = if_exists(fs::read_dir(folder)).map_err(FileError::to("read", folder))?;
    let mut found = Vec::new();
    for entry in entries.into_iter().flatten() {
        let path = entry.map_err(FileError::to("read", folder))?.path();
        if let Some(step) = step_of(&path).filter(|_| path.is_dir()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The step that the name of a checkpoint's folder says.
fn step_of(path: &Path) -> Option<usize> {
    let digits = path.file_name()?.to_str()?.strip_prefix("step-")?;
    // As it is written: no sign, no zeros in front.
    let step: usize = digits.parse().ok()?;
    (step.to_string() == digits).then_some(step)
}

/// The shape of each trainable parameter, by its path in the module.
pub(crate) fn parameter_shapes<B: Backend, M: Module<B>>(
    model: &M,
) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = Shapes::default();
    model.visit(&mut shapes);
    shapes.found
}

#[derive(Default)]
struct Shapes {
    path: Vec<String>,
    found: BTreeMap<String, Vec<usize>>,
}

impl<B: Backend> ModuleVisitor<B> for Shapes {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.found
            .insert(self.path.join("."), param.val().dims().to_vec());
    }

    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}
