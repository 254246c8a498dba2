//! The model that a run trains.

use burn::tensor::backend::Backend;
use burn_peft::{Adapter, PeftModel};
use burn_peft_data::TextTokenizer;
use burn_peft_decoder::{Decoder, DecoderConfig};
use burn_peft_ops::Ops;

use crate::{Error, Method, Start, TaskSetup};

/// A new adapter on the base, and a head where the task has one: the method's, or a new one. Everything random follows
/// from `seed`.
pub(crate) fn new_model<B: Ops, M: Method>(
    method: &M,
    base: Decoder<B>,
    task: &TaskSetup,
    tokenizer: &TextTokenizer,
    seed: u64,
) -> Result<PeftModel<B, M::Adapter<B>>, Error> {
    let device = base.device();
    B::seed(&device, seed);
    let adapter = method.init(Start {
        base: &base,
        tokenizer,
        seed,
    })?;
    check_tokens(method, &adapter)?;
    let new = task.init_head(base.config().hidden_size, seed, &device);
    let head = match (new, method.head(&base)?) {
        (Some(new), Some(given))
            if (new.kind(), new.outputs()) == (given.kind(), given.outputs()) =>
        {
            Some(task.with_options(given))
        }
        (new, None) => new,
        (_, Some(given)) => {
            return Err(Error::OtherHead {
                outputs: given.outputs(),
                kind: given.kind(),
                task: task.task,
            });
        }
    };
    Ok(PeftModel::new(base, adapter).with_head(head))
}

/// Refuses a run in which nothing trains.
pub(crate) fn check_trains(
    method: &impl Method,
    task: &TaskSetup,
    base: &DecoderConfig,
) -> Result<(), Error> {
    if method.num_trainable(base) != Some(0) {
        return Ok(());
    }
    let why = match task.head_kind() {
        Some(_) if task.config.freeze_head => "task.freeze_head is true",
        Some(_) => return Ok(()),
        None if task.words.is_some() => "the language-model head tells the classes",
        None => "text is learned",
    };
    let method = method.name().to_owned();
    Err(Error::NothingTrains { method, why })
}

/// What the method says of its virtual tokens must be what its adapter injects.
fn check_tokens<B: Backend>(method: &impl Method, adapter: &impl Adapter<B>) -> Result<(), Error> {
    let (said, injected) = (
        method.num_virtual_tokens(),
        adapter.inject().num_virtual_tokens(),
    );
    if said == injected {
        return Ok(());
    }
    let name = "num_virtual_tokens";
    let reason = format!(
        "{} says {said}, and its adapter injects {injected}",
        method.name()
    );
    Err(burn_peft::Error::Option { name, reason }.into())
}
