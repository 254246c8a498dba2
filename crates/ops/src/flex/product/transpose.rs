//! Rows of a matrix as the columns of a micro-panel, and the words they become.

use wide::f32x4;

use crate::flex::{element::Element, vector::prefetch};

/// Words of a row that are packed at a time: four cache lines. The next ones are prefetched meanwhile.
pub(in crate::flex) const RUN: usize = 64;

/// What one word is packed from: a number, or two that become a pair of bf16.
pub(super) trait ToWord: Copy {
    /// The word's bits.
    fn word(self) -> f32;
}

impl<E: Element> ToWord for E {
    #[inline(always)]
    fn word(self) -> f32 {
        self.load()
    }
}

impl<E: Element> ToWord for [E; 2] {
    #[inline(always)]
    fn word(self) -> f32 {
        let [low, high] = self.map(
            #[inline(always)]
            |x| u32::from(x.narrow().to_bits()),
        );
        f32::from_bits(high << 16 | low)
    }
}

/// Writes words of some rows, from `first` on, to a micro-panel `[words, width]`, where a row is a column.
#[inline(always)]
pub(super) fn transpose<'a, W: ToWord + 'a, T>(
    panel: &mut [T],
    width: usize,
    rows: impl Iterator<Item = &'a [W]> + Clone,
    first: usize,
    to_place: impl Fn(f32) -> T,
) {
    for (run, panel) in panel.chunks_mut(RUN * width).enumerate() {
        let (start, len) = (first + run * RUN, panel.len() / width);
        let mut rows = rows.clone().map(
            #[inline(always)]
            |row| {
                let row = &row[start..][..len];
                prefetch(row.as_ptr().wrapping_add(RUN), RUN);
                row
            },
        );
        let mut column = 0;
        while let Some(a) = rows.next() {
            let (b, c, d) = (rows.next(), rows.next(), rows.next());
            if let (Some(b), Some(c), Some(d)) = (b, c, d) {
                four_columns(panel, width, column, [a, b, c, d], &to_place);
            } else {
                for (column, row) in (column..).zip([Some(a), b, c].into_iter().flatten()) {
                    one_column(panel, width, column, row, &to_place);
                }
            }
            column += 4;
        }
    }
}

#[inline(always)]
fn one_column<W: ToWord, T>(
    panel: &mut [T],
    width: usize,
    column: usize,
    row: &[W],
    to_place: &impl Fn(f32) -> T,
) {
    for (places, x) in panel.chunks_exact_mut(width).zip(row) {
        places[column] = to_place(x.word());
    }
}

/// Transposes blocks of 4 × 4 in registers.
#[inline(always)]
fn four_columns<W: ToWord, T>(
    panel: &mut [T],
    width: usize,
    column: usize,
    rows: [&[W]; 4],
    to_place: &impl Fn(f32) -> T,
) {
    let [a, b, c, d] = rows.map(|row| row.as_chunks::<4>());
    let blocks = a.0.iter().zip(b.0).zip(c.0).zip(d.0);
    for (places, (((a, b), c), d)) in panel.chunks_exact_mut(4 * width).zip(blocks) {
        let columns = f32x4::transpose([vector(a), vector(b), vector(c), vector(d)]);
        for (places, columns) in places.chunks_exact_mut(width).zip(columns) {
            let places = &mut places[column..][..4];
            for (place, x) in places.iter_mut().zip(columns.to_array()) {
                *place = to_place(x);
            }
        }
    }
    let rest = a.0.len() * 4 * width;
    for (column, row) in (column..).zip([a.1, b.1, c.1, d.1]) {
        one_column(&mut panel[rest..], width, column, row, to_place);
    }
}

#[inline(always)]
fn vector<W: ToWord>([a, b, c, d]: &[W; 4]) -> f32x4 {
    f32x4::new([a.word(), b.word(), c.word(), d.word()])
}
