//! Texts whose class a head learns.

use super::source::{Numbered, Outcome, Source, TooLong};
use crate::error::Result;
use crate::example::{Example, IGNORE_INDEX, Parts};
use crate::given::{Given, GivenIds, GivenPart};
use crate::labels::Labels;
use crate::row::Row;

/// Makes the examples of `rows`, in order.
pub(super) fn tokenize_chunk(
    source: &Source<'_>,
    rows: &[Numbered],
    labels: &Labels,
) -> Result<Vec<Outcome>> {
    let given = rows
        .iter()
        .map(|(line, row)| given(source, row).map_err(|error| source.at(*line, error)));
    let given = given.collect::<Result<Vec<_>>>()?;
    let outcome = |((line, row), ids): (&Numbered, GivenIds)| {
        if ids.input_ids.is_empty() {
            let reason = "the text has no token, so there is nothing to tell its class from";
            return Err(source.bad(*line, reason.to_owned()));
        }
        let row_label = labels.gold(row);
        let example = Example {
            labels: vec![IGNORE_INDEX; ids.input_ids.len()],
            input_ids: ids.input_ids,
            row_label: Some(row_label.map_err(|reason| source.bad(*line, reason))?),
            placement: ids.placement,
            parts: Parts::Whole,
            row: 0,
            line: *line,
        };
        Ok(Outcome {
            too_long: ids.is_cut.then(TooLong::default),
            examples: vec![example],
        })
    };
    let ids = assemble(source, rows, &given, source.limit)?;
    rows.iter().zip(ids).map(outcome).collect()
}

/// The parts of a row. `None` of token ids, which are used as they are.
fn given<'a>(source: &Source<'a>, row: &'a Row) -> Result<Option<Given<'a>>> {
    let Some(template) = source.template else {
        let encoded = |(text, pair)| Given::encoded(text, pair, source.tokenizer);
        return Ok(row.text().map(encoded));
    };
    let [before, after] = &source.tokenizer.specials().single;
    let mut given = template.given_of(row, false)?.starting_with(before);
    given.parts.push(GivenPart::Ids(after));
    Ok(Some(given))
}

/// The ids of rows, whose parts are `given`, with fields cut so that there are no more than `room`. A row of which the
/// cut leaves no field is refused.
pub(super) fn assemble(
    source: &Source<'_>,
    rows: &[Numbered],
    given: &[Option<Given<'_>>],
    room: usize,
) -> Result<Vec<GivenIds>> {
    let texts = rows.iter().zip(given).map(|((line, _), given)| {
        let texts = given.as_ref().map(Given::texts);
        (*line, texts.unwrap_or_default())
    });
    let texts: Vec<_> = texts.collect();
    let encodings = source.encode(&texts)?;
    let parts = rows.iter().zip(given).zip(encodings);
    let ids = parts.map(|(((line, row), given), encodings)| {
        let ids = match (given, row) {
            (Some(given), _) => given.assemble(&encodings, room),
            (None, Row::ClassificationIds { input_ids, .. }) => {
                source.check_given(*line, input_ids)?;
                GivenIds {
                    input_ids: input_ids[..input_ids.len().min(room)].to_vec(),
                    placement: None,
                    is_cut: input_ids.len() > room,
                    of_fields: input_ids.len().min(room),
                }
            }
            (None, _) => unreachable!("rows of other tasks were refused"),
        };
        source.check(*line, &ids.input_ids)?;
        if ids.is_cut && ids.of_fields == 0 {
            return Err(source.no_room(*line, "the text"));
        }
        Ok(ids)
    });
    ids.collect()
}
