//! Keys and values of rows that come and go: the cache of a server.

use burn::tensor::{DType, Int, Tensor, backend::Backend, s};
use burn_peft_ops::{NO_TOKEN, Ops, ScoreMask, Visibility};

use crate::{DecoderConfig, LayerKv, cache::repeat_heads, decode::cell_indices};

/// Room for the keys and values of a number of rows, reserved once. A row has a slot as long as it runs; what a slot
/// holds stays until it is cleared or cut.
#[derive(Debug)]
pub struct KvSlots<B: Backend> {
    /// Per layer keys and values, `[slots, heads, capacity, head_dim]`.
    layers: Vec<[Tensor<B, 4>; 2]>,
    /// Per slot, the place in its row of each cell that it holds.
    places: Vec<Vec<usize>>,
    capacity: usize,
}

/// Tokens of one row that are computed in one step: the next ones of its slot.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Where the row is held.
    pub slot: usize,
    /// Each token's place in the row, which is also its position.
    pub places: Vec<usize>,
}

/// How the tokens of a step attend: those of rows with one token together, and every longer piece by itself.
#[derive(Debug)]
pub(crate) struct SlotPass<B: Backend> {
    pieces: Vec<Written>,
    /// Slot and cell of each token.
    cells: Vec<[usize; 2]>,
    /// The rows with one token.
    singles: Option<Singles<B>>,
    /// For each longer piece, its number and what it sees.
    longer: Vec<(usize, ScoreMask<B>)>,
    /// For each token of the step its place among those of `singles`, and of the longer pieces behind them.
    order: Option<Tensor<B, 1, Int>>,
}

/// Where a piece's tokens go.
#[derive(Debug)]
struct Written {
    slot: usize,
    /// Its first token in the step.
    token: usize,
    tokens: usize,
    /// The cell of the slot that its first token goes to.
    cell: usize,
}

/// Rows with one token each. They are computed with all slots between the first and the last of them.
#[derive(Debug)]
struct Singles<B: Backend> {
    first_slot: usize,
    slots: usize,
    /// The cells of the fullest slot among them.
    cells: usize,
    /// For each slot the token that it computes; in slots between them, any.
    tokens: Tensor<B, 1, Int>,
    mask: ScoreMask<B>,
}

impl<B: Backend> KvSlots<B> {
    /// Room for `slots` rows of up to `capacity` tokens. `heads` is the model's number of key/value heads, or that of
    /// its query heads where a prefix has as many.
    #[must_use]
    pub fn new(
        config: &DecoderConfig,
        dtype: DType,
        [slots, capacity]: [usize; 2],
        heads: usize,
        device: &B::Device,
    ) -> Self {
        let shape = [slots, heads, capacity, config.head_dim];
        let room = || Tensor::zeros(shape, (device, dtype));
        let layers = 0..config.num_hidden_layers;
        Self {
            layers: layers.map(|_| [room(), room()]).collect(),
            places: vec![Vec::new(); slots],
            capacity,
        }
    }

    /// Number of slots.
    #[must_use]
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// Heads that there is room for.
    #[must_use]
    pub fn heads(&self) -> usize {
        self.layers.first().map_or(0, |[key, _]| key.dims()[1])
    }

    /// Tokens that a slot has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Tokens that a slot holds.
    #[must_use]
    pub fn held(&self, slot: usize) -> usize {
        self.places[slot].len()
    }

    /// Keeps the first `cells` cells of a slot.
    pub fn truncate(&mut self, slot: usize, cells: usize) {
        self.places[slot].truncate(cells);
    }
}

impl<B: Ops> KvSlots<B> {
    /// Lets a slot hold the first `cells` cells of another, in place of what it holds.
    pub fn copy(&mut self, from: usize, to: usize, cells: usize) {
        let places: Vec<_> = (0..cells).map(|cell| [to, cell]).collect();
        for states in self.layers.iter_mut().flatten() {
            // Numbers of its own: what is written to must be held by nobody else.
            let copied = states.clone().slice(s![from..from + 1, .., ..cells, ..]) + 0;
            write(states, copied, &places);
        }
        self.places[to] = self.places[from][..cells].to_vec();
    }

    /// Lets a slot hold a prefix, in place of what it holds. `places` are those of its tokens in the row.
    ///
    /// # Panics
    /// If the prefix has not one key and value a layer, or does not fit.
    pub fn put_prefix(&mut self, slot: usize, prefix: &[LayerKv<B>], places: Vec<usize>) {
        assert_eq!(
            prefix.len(),
            self.layers.len(),
            "one key and value for each layer"
        );
        assert!(places.len() <= self.capacity, "a prefix that fits");
        let cells: Vec<_> = (0..places.len()).map(|cell| [slot, cell]).collect();
        for (held, LayerKv { key, value }) in self.layers.iter_mut().zip(prefix) {
            for (states, new) in held.iter_mut().zip([key, value]) {
                let new = new.clone().slice(s![.., ..places.len(), ..]);
                write(states, new.unsqueeze(), &cells);
            }
        }
        self.places[slot] = places;
    }

    /// Notes that the tokens of `pieces` come next, one piece a slot, and says how they attend.
    ///
    /// # Panics
    /// If a slot has no room for its piece.
    pub(crate) fn plan(
        &mut self,
        pieces: &[Piece],
        dtype: DType,
        device: &B::Device,
    ) -> SlotPass<B> {
        let mut token = 0;
        let mut written = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let held = &mut self.places[piece.slot];
            assert!(
                held.len() + piece.places.len() <= self.capacity,
                "a slot with room"
            );
            written.push(Written {
                slot: piece.slot,
                token,
                tokens: piece.places.len(),
                cell: held.len(),
            });
            held.extend(&piece.places);
            token += piece.places.len();
        }
        let is_single = |piece: &&Written| piece.tokens == 1;
        let singles: Vec<&Written> = written.iter().filter(is_single).collect();
        let mut order = vec![0; token];
        let singles = (!singles.is_empty()).then(|| {
            let slots = || singles.iter().map(|piece| piece.slot);
            let first_slot = slots().min().expect("a slot");
            let last_slot = slots().max().expect("a slot");
            let count = last_slot + 1 - first_slot;
            let cells = slots().map(|slot| self.held(slot)).max().expect("a slot");
            let mut tokens = vec![singles[0].token; count];
            // A slot that computes nothing sees its first cell, whatever that is.
            let mut queries = vec![0; count];
            let mut keys = vec![NO_TOKEN; count * cells];
            keys.iter_mut().step_by(cells).for_each(|key| *key = 0);
            for piece in &singles {
                let row = piece.slot - first_slot;
                tokens[row] = piece.token;
                order[piece.token] = row;
                let places = &self.places[piece.slot];
                queries[row] = place(places[piece.cell]);
                for (key, held) in keys[row * cells..].iter_mut().zip(places) {
                    *key = place(*held);
                }
            }
            let visibility = Visibility::new(count, queries, keys);
            Singles {
                first_slot,
                slots: count,
                cells,
                tokens: cell_indices(&tokens, device),
                mask: B::score_mask(visibility, dtype, device),
            }
        });
        let mut behind = singles.as_ref().map_or(0, |singles| singles.slots);
        let longer = written.iter().enumerate();
        let longer = longer.filter(|(_, piece)| piece.tokens > 1);
        let longer: Vec<_> = longer
            .map(|(index, piece)| {
                for token in 0..piece.tokens {
                    order[piece.token + token] = behind + token;
                }
                behind += piece.tokens;
                let places = self.places[piece.slot].iter().copied().map(place);
                let keys: Vec<i32> = places.collect();
                let queries = keys[piece.cell..].to_vec();
                let visibility = Visibility::new(1, queries, keys);
                (index, B::score_mask(visibility, dtype, device))
            })
            .collect();
        let in_order = behind == token && order.iter().copied().eq(0..token);
        let cells = written.iter().flat_map(|piece| {
            let cells = piece.cell..piece.cell + piece.tokens;
            cells.map(|cell| [piece.slot, cell])
        });
        SlotPass {
            cells: cells.collect(),
            pieces: written,
            singles,
            longer,
            order: (!in_order).then(|| cell_indices(&order, device)),
        }
    }

    /// Writes the keys and values of a step's tokens in layer `layer`, and lets its queries attend to what their rows
    /// hold.
    ///
    /// # Shapes
    /// - query, output: `[1, n_heads, tokens, head_dim]`
    /// - key, value: `[1, n_kv_heads, tokens, head_dim]`
    pub(crate) fn attend(
        &mut self,
        layer: usize,
        query: Tensor<B, 4>,
        [key, value]: [Tensor<B, 4>; 2],
        pass: &SlotPass<B>,
    ) -> Tensor<B, 4> {
        let layer = &mut self.layers[layer];
        for (states, new) in layer.iter_mut().zip([key, value]) {
            write(states, new, &pass.cells);
        }
        let held = |slots: std::ops::Range<usize>, cells: usize| {
            layer
                .each_ref()
                .map(|states| states.clone().slice(s![slots.clone(), .., ..cells, ..]))
        };
        let [_, heads, tokens, head_dim] = query.dims();
        // A token's heads side by side.
        let by_token = |states: Tensor<B, 4>| {
            let [rows, heads, seq, head_dim] = states.dims();
            states
                .swap_dims(1, 2)
                .reshape([rows * seq, heads, head_dim])
        };
        let query = by_token(query);
        let mut attended = Vec::with_capacity(1 + pass.longer.len());
        if let Some(singles) = &pass.singles {
            let query = query.clone().select(0, singles.tokens.clone());
            let query = query.reshape([singles.slots, heads, 1, head_dim]);
            let slots = singles.first_slot..singles.first_slot + singles.slots;
            let [key, value] = held(slots, singles.cells);
            let found = B::grouped_attention(query, key, value, &singles.mask);
            attended.push(by_token(found));
        }
        for (piece, mask) in &pass.longer {
            let piece = &pass.pieces[*piece];
            let own = piece.token..piece.token + piece.tokens;
            let query = query.clone().slice(s![own, .., ..]);
            let query = query.unsqueeze::<4>().swap_dims(1, 2);
            let slot = piece.slot..piece.slot + 1;
            let [key, value] = held(slot, piece.cell + piece.tokens);
            attended.push(by_token(B::grouped_attention(query, key, value, mask)));
        }
        let attended = Tensor::cat(attended, 0);
        let attended = match &pass.order {
            Some(order) => attended.select(0, order.clone()),
            None => attended,
        };
        let attended: Tensor<B, 4> = attended.reshape([1, tokens, heads, head_dim]);
        attended.swap_dims(1, 2)
    }
}

/// Writes `[1, kv_heads, tokens, head_dim]` into cells, each head as often as the slots have heads for it. There is no
/// second handle to the slots meanwhile, so that this happens in place.
fn write<B: Ops>(states: &mut Tensor<B, 4>, new: Tensor<B, 4>, places: &[[usize; 2]]) {
    let [_, heads, _, _] = states.dims();
    let new = repeat_heads(new.cast(states.dtype()), heads);
    let none = Tensor::empty([0, 0, 0, 0], (&states.device(), states.dtype()));
    let held = std::mem::replace(states, none);
    *states = B::write_cells(held, new, places);
}

fn place(place: usize) -> i32 {
    i32::try_from(place).expect("a sequence of 32 bits")
}
