//! The sums of a step over the micro-batches of all ranks, in the order of the micro-batches.
//!
//! Floating-point sums depend on their order, and those of a library's reduction on how many processes there are. So each
//! rank adds up one part of the gradients, in order and for all: a round takes one micro-batch of each rank, every rank hands
//! every other the part that is the other's, and behind the last round all get all parts. The sums are those of one process
//! that computes the micro-batches one after the other, bit for bit. A rank sends its gradients once a round and its part of
//! the sums once a step, however many ranks there are.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::ops::Range;

use burn::module::{AutodiffModule, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Device, Tensor, TensorData};

use crate::ranks::Group;

/// The number that changes no other by being added: zero would make a zero of minus zero.
const NOTHING: f32 = -0.0;

/// What a micro-batch adds to its step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MicroSum {
    sums: Sums,
    /// The gradients of all parameters, one behind the other.
    gradients: Vec<f32>,
}

/// What of a micro-batch, or of a step, everyone gets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sums {
    /// Summed over supervised tokens.
    pub(super) loss: f32,
    pub(super) label_tokens: u64,
    pub(super) tokens: u64,
    /// For each parameter, whether it has a gradient.
    has_gradient: Vec<bool>,
}

impl Sums {
    fn nothing(layout: &Layout) -> Self {
        Self {
            loss: NOTHING,
            label_tokens: 0,
            tokens: 0,
            has_gradient: vec![false; layout.places.len()],
        }
    }

    fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.label_tokens += other.label_tokens;
        self.tokens += other.tokens;
        for (own, other) in self.has_gradient.iter_mut().zip(&other.has_gradient) {
            *own |= other;
        }
    }

    /// Bytes of [`to_bytes`](Self::to_bytes).
    fn size(layout: &Layout) -> usize {
        20 + layout.places.len()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.loss.to_ne_bytes().to_vec();
        bytes.extend(self.label_tokens.to_ne_bytes());
        bytes.extend(self.tokens.to_ne_bytes());
        bytes.extend(self.has_gradient.iter().map(|has| u8::from(*has)));
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let number = |at: usize| {
            let bytes = bytes[at..at + 8].try_into().expect("eight bytes");
            u64::from_ne_bytes(bytes)
        };
        Self {
            loss: floats(&bytes[..4])[0],
            label_tokens: number(4),
            tokens: number(12),
            has_gradient: bytes[20..].iter().map(|has| *has != 0).collect(),
        }
    }
}

impl MicroSum {
    /// Of rows of which nothing is learned.
    pub(super) fn of_tokens(tokens: usize, layout: &Layout) -> Self {
        let mut sums = Sums::nothing(layout);
        sums.tokens = tokens as u64;
        Self {
            sums,
            gradients: vec![NOTHING; layout.len],
        }
    }

    /// Of rows with so many supervised tokens and this loss, summed over them. The gradients are read from the device.
    pub(super) fn learned<B: AutodiffBackend, M: AutodiffModule<B>>(
        self,
        loss: f32,
        label_tokens: usize,
        module: &M,
        gradients: &GradientsParams,
        layout: &Layout,
    ) -> Self {
        let mut read = Read::<B> {
            gradients,
            layout,
            found: self,
            backend: PhantomData,
        };
        module.visit(&mut read);
        let mut found = read.found;
        found.sums.loss = loss;
        found.sums.label_tokens = label_tokens as u64;
        found
    }
}

/// Where each parameter stands among all of them.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// The number of the parameter, and its numbers.
    places: HashMap<ParamId, (usize, Range<usize>)>,
    /// Numbers of all parameters.
    pub(super) len: usize,
}

impl Layout {
    pub(super) fn of<B: AutodiffBackend, M: AutodiffModule<B>>(module: &M) -> Self {
        let mut layout = Self::default();
        module.visit(&mut Places::<B> {
            layout: &mut layout,
            backend: PhantomData,
        });
        layout
    }

    /// Numbers of the part that each of `ranks` adds up. The last part may have fewer that count.
    fn part(&self, ranks: usize) -> usize {
        self.len.div_ceil(ranks)
    }
}

/// The sums of a step so far, and of the gradients the part that is this rank's.
pub(super) struct Total<'a> {
    group: &'a dyn Group,
    layout: &'a Layout,
    sums: Sums,
    part: Vec<f32>,
}

impl<'a> Total<'a> {
    pub(super) fn new(group: &'a dyn Group, layout: &'a Layout) -> Self {
        Self {
            group,
            layout,
            sums: Sums::nothing(layout),
            part: vec![NOTHING; layout.part(group.size())],
        }
    }

    /// Adds a micro-batch of each rank, in their order; the last ranks may have none left. Returns whether there are others,
    /// which the first rank knows: no other has more.
    pub(super) fn round(&mut self, own: Option<MicroSum>, more: bool) -> bool {
        let part = self.part.len();
        let own = own.unwrap_or_else(|| MicroSum::of_tokens(0, self.layout));
        let sums = own.sums.to_bytes();
        let mut gradients = own.gradients;
        gradients.resize(part * self.group.size(), NOTHING);
        let mut parts = Vec::with_capacity(self.group.size() * (1 + sums.len() + 4 * part));
        for rank in 0..self.group.size() {
            parts.push(more.into());
            parts.extend(&sums);
            let gradients = &gradients[rank * part..][..part];
            parts.extend_from_slice(bytemuck::cast_slice(gradients));
        }
        let found = self.group.all_to_all(&parts);
        for of_rank in found.chunks(found.len() / self.group.size()) {
            let (sums, gradients) = of_rank[1..].split_at(Sums::size(self.layout));
            self.sums.add(&Sums::from_bytes(sums));
            for (sum, number) in self.part.iter_mut().zip(floats(gradients)) {
                *sum += number;
            }
        }
        found[0] != 0
    }

    /// What all micro-batches came to, on every rank.
    pub(super) fn finish<B: AutodiffBackend, M: AutodiffModule<B>>(
        self,
        module: &M,
        device: &Device<B>,
    ) -> (Sums, GradientsParams) {
        let Self {
            group,
            layout,
            sums,
            part,
        } = self;
        let all = group.all_gather(bytemuck::cast_slice(&part));
        let mut write = Write::<B> {
            numbers: &floats(&all),
            layout,
            has_gradient: &sums.has_gradient,
            device,
            gradients: GradientsParams::new(),
        };
        module.visit(&mut write);
        let gradients = write.gradients;
        (sums, gradients)
    }
}

/// The numbers of bytes that begin anywhere.
fn floats(bytes: &[u8]) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(bytes)
}

struct Places<'a, B> {
    layout: &'a mut Layout,
    backend: PhantomData<B>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Places<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Layout { places, len } = &mut *self.layout;
        let (index, first) = (places.len(), *len);
        places.entry(param.id).or_insert_with(|| {
            *len += param.shape().num_elements();
            (index, first..*len)
        });
    }
}

/// Reads the gradients of a module from the device.
struct Read<'a, B> {
    gradients: &'a GradientsParams,
    layout: &'a Layout,
    found: MicroSum,
    backend: PhantomData<B>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Read<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Some(gradient) = self.gradients.get::<B::InnerBackend, D>(param.id) else {
            return;
        };
        let (index, place) = &self.layout.places[&param.id];
        self.found.sums.has_gradient[*index] = true;
        let numbers = self.found.gradients[place.clone()].iter_mut();
        // What trains is f32 on every backend.
        for (number, value) in numbers.zip(gradient.into_data().iter::<f32>()) {
            *number = value;
        }
    }
}

/// Makes gradients of a module on the device.
struct Write<'a, B: AutodiffBackend> {
    numbers: &'a [f32],
    layout: &'a Layout,
    has_gradient: &'a [bool],
    device: &'a Device<B>,
    gradients: GradientsParams,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Write<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let (index, place) = &self.layout.places[&param.id];
        if !self.has_gradient[*index] {
            return;
        }
        let data = TensorData::new(self.numbers[place.clone()].to_vec(), param.shape());
        let gradient = Tensor::<B::InnerBackend, D>::from_data(data, self.device);
        self.gradients.register(param.id, gradient);
    }
}
