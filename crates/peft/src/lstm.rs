//! A bidirectional LSTM over one short sequence, in PyTorch's layout.
//!
//! Burn's own has one layer, other parameters than PyTorch's, and a backward pass that costs the square
//! of the sequence; a prompt encoder wants PEFT's state and needs nothing else.

use burn::{
    module::{Module, Param},
    nn::{Dropout, DropoutConfig},
    tensor::{Tensor, activation, backend::Backend, s},
};

use crate::{
    ModuleListing,
    param::{Init, Source},
};

/// Layers of LSTMs that read a sequence in both directions, with dropout between the layers.
#[derive(Module, Debug)]
pub(crate) struct BiLstm<B: Backend> {
    layers: Vec<BiLstmLayer<B>>,
    dropout: Dropout,
}

#[derive(Module, Debug)]
struct BiLstmLayer<B: Backend> {
    forward: Direction<B>,
    backward: Direction<B>,
}

/// One layer in one direction. The four gates are stacked: input, forget, cell, output.
#[derive(Module, Debug)]
struct Direction<B: Backend> {
    /// `[4 · units, d_in]`.
    weight_ih: Param<Tensor<B, 2>>,
    /// `[4 · units, units]`.
    weight_hh: Param<Tensor<B, 2>>,
    /// `[4 · units]`.
    bias_ih: Param<Tensor<B, 1>>,
    /// `[4 · units]`; PyTorch keeps two biases, as cuDNN does.
    bias_hh: Param<Tensor<B, 1>>,
}

/// The sizes of a [`BiLstm`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct BiLstmSize {
    pub(crate) d_in: usize,
    /// Of each direction; the output is twice as wide.
    pub(crate) units: usize,
    pub(crate) layers: usize,
}

impl BiLstmSize {
    /// Inputs of layer `layer`.
    pub(crate) fn inputs(&self, layer: usize) -> usize {
        if layer == 0 {
            self.d_in
        } else {
            2 * self.units
        }
    }

    /// As PyTorch's `LSTM` shows itself.
    pub(crate) fn listing(&self, dropout: f64) -> ModuleListing {
        let (gates, units) = (4 * self.units, self.units);
        let mut arguments = format!("{}, {units}", self.d_in);
        // PyTorch names only what is not its default, and the number of layers is 1 there.
        if self.layers > 1 {
            arguments += &format!(", num_layers={}", self.layers);
        }
        arguments += ", batch_first=True";
        if dropout > 0.0 {
            arguments += &format!(", dropout={dropout:?}");
        }
        let mut lstm = ModuleListing::new("LSTM").arguments(arguments + ", bidirectional=True");
        for layer in 0..self.layers {
            for end in ["", "_reverse"] {
                lstm = lstm
                    .parameter(
                        format!("weight_ih_l{layer}{end}"),
                        [gates, self.inputs(layer)],
                    )
                    .parameter(format!("weight_hh_l{layer}{end}"), [gates, units])
                    .parameter(format!("bias_ih_l{layer}{end}"), [gates])
                    .parameter(format!("bias_hh_l{layer}{end}"), [gates]);
            }
        }
        lstm
    }
}

impl<B: Backend> BiLstm<B> {
    /// An LSTM whose parameters have PyTorch's names behind `name`, such as `name.weight_hh_l0_reverse`.
    pub(crate) fn new(
        name: &str,
        size: BiLstmSize,
        dropout: f64,
        source: &mut Source<'_>,
        device: &B::Device,
    ) -> Self {
        let mut direction = |layer: usize, end: &str| {
            let (init, gates) = (Init::Uniform(size.units), 4 * size.units);
            let named = |part: &str| format!("{name}.{part}_l{layer}{end}");
            Direction {
                weight_ih: source.param(
                    &named("weight_ih"),
                    [gates, size.inputs(layer)],
                    init,
                    device,
                ),
                weight_hh: source.param(&named("weight_hh"), [gates, size.units], init, device),
                bias_ih: source.param(&named("bias_ih"), [gates], init, device),
                bias_hh: source.param(&named("bias_hh"), [gates], init, device),
            }
        };
        Self {
            layers: (0..size.layers)
                .map(|layer| BiLstmLayer {
                    forward: direction(layer, ""),
                    backward: direction(layer, "_reverse"),
                })
                .collect(),
            dropout: DropoutConfig::new(dropout).init(),
        }
    }

    /// # Shapes
    /// - input: `[tokens, d_in]`
    /// - output: `[tokens, 2 · units]`
    pub(crate) fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        let mut states = input;
        for (index, layer) in self.layers.iter().enumerate() {
            if index > 0 {
                states = self.dropout.forward(states);
            }
            let read = layer.forward.read(states.clone(), false);
            states = Tensor::cat(vec![read, layer.backward.read(states, true)], 1);
        }
        states
    }
}

impl<B: Backend> Direction<B> {
    /// # Shapes
    /// - input: `[tokens, d_in]`
    /// - output: `[tokens, units]`, in the order of the input whichever way it was read
    fn read(&self, input: Tensor<B, 2>, reverse: bool) -> Tensor<B, 2> {
        let tokens = input.dims()[0];
        let units = self.weight_hh.dims()[1];
        let bias = self.bias_ih.val() + self.bias_hh.val();
        // What a step takes from its input needs no step before it.
        let from_input = input.matmul(self.weight_ih.val().transpose()) + bias.unsqueeze();
        let recurrent = self.weight_hh.val().transpose();
        let (device, dtype) = (from_input.device(), from_input.dtype());
        let options = (&device, dtype);
        let mut hidden = Tensor::<B, 2>::zeros([1, units], options);
        let mut cell = Tensor::<B, 2>::zeros([1, units], options);
        let mut read = Vec::with_capacity(tokens);
        for step in 0..tokens {
            let token = if reverse { tokens - 1 - step } else { step };
            let gates = from_input.clone().slice(s![token..token + 1, ..])
                + hidden.matmul(recurrent.clone());
            let gate = |index: usize| {
                gates
                    .clone()
                    .slice(s![.., index * units..(index + 1) * units])
            };
            let kept = logistic(gate(1)) * cell;
            cell = kept + logistic(gate(0)) * activation::tanh(gate(2));
            hidden = logistic(gate(3)) * activation::tanh(cell.clone());
            read.push(hidden.clone());
        }
        if reverse {
            read.reverse();
        }
        Tensor::cat(read, 0)
    }
}

/// The logistic function by way of tanh: Burn's own takes a logarithm in f32, whatever the type.
fn logistic<B: Backend>(input: Tensor<B, 2>) -> Tensor<B, 2> {
    activation::tanh(input.mul_scalar(0.5))
        .mul_scalar(0.5)
        .add_scalar(0.5)
}
