//! `tensorboard/compat/proto/event.proto` and `summary.proto`, as far as scalars need them, in the framing of TFRecord.

/// One entry of an event file.
#[derive(Debug)]
pub(super) struct Event<'a> {
    /// Seconds since 1970.
    wall_time: f64,
    step: usize,
    what: What<'a>,
}

/// What an event says.
#[derive(Debug)]
pub(super) enum What<'a> {
    /// In which version the file is written.
    Version,
    /// A process began here: what others said of this step and later ones does not count.
    Restart,
    /// A number.
    Scalar {
        /// Its name.
        tag: &'a str,
        /// The number.
        value: f32,
    },
}

// The numbers of the fields.
const EVENT_WALL_TIME: u32 = 1;
const EVENT_STEP: u32 = 2;
const EVENT_FILE_VERSION: u32 = 3;
const EVENT_SUMMARY: u32 = 5;
const EVENT_SESSION_LOG: u32 = 7;
const SUMMARY_VALUE: u32 = 1;
const VALUE_TAG: u32 = 1;
const VALUE_SIMPLE_VALUE: u32 = 2;
const SESSION_LOG_STATUS: u32 = 1;

/// Files of this version may take back steps.
const VERSION: &str = "brain.Event:2";
/// `SessionLog.START`.
const START: u64 = 1;

impl<'a> Event<'a> {
    pub(super) fn at(wall_time: f64, step: usize, what: What<'a>) -> Self {
        Self {
            wall_time,
            step,
            what,
        }
    }

    /// The event as a record: its length, a checksum of that, its bytes, and a checksum of these.
    pub(super) fn record(&self) -> Vec<u8> {
        let event = self.encoded();
        let length = (event.len() as u64).to_le_bytes();
        [
            &length[..],
            &masked(crc32c::crc32c(&length)).to_le_bytes(),
            &event,
            &masked(crc32c::crc32c(&event)).to_le_bytes(),
        ]
        .concat()
    }

    fn encoded(&self) -> Vec<u8> {
        let mut event = Message::default();
        event.fixed64(EVENT_WALL_TIME, self.wall_time.to_le_bytes());
        if self.step > 0 {
            event.varint(EVENT_STEP, self.step as u64);
        }
        match self.what {
            What::Version => event.bytes(EVENT_FILE_VERSION, VERSION.as_bytes()),
            What::Restart => {
                let mut log = Message::default();
                log.varint(SESSION_LOG_STATUS, START);
                event.bytes(EVENT_SESSION_LOG, &log.0);
            }
            What::Scalar { tag, value } => {
                let (mut scalar, mut summary) = (Message::default(), Message::default());
                scalar.bytes(VALUE_TAG, tag.as_bytes());
                scalar.fixed32(VALUE_SIMPLE_VALUE, value.to_le_bytes());
                summary.bytes(SUMMARY_VALUE, &scalar.0);
                event.bytes(EVENT_SUMMARY, &summary.0);
            }
        }
        event.0
    }
}

/// A checksum as TFRecord stores it: a checksum of bytes that hold checksums would be weak.
fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A protobuf message as it grows.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// A field's number and its wire type.
    fn key(&mut self, field: u32, wire_type: u32) {
        self.raw_varint(u64::from(field << 3 | wire_type));
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(&mut self, field: u32, value: u64) {
        self.key(field, 0);
        self.raw_varint(value);
    }

    fn fixed64(&mut self, field: u32, value: [u8; 8]) {
        self.key(field, 1);
        self.0.extend(value);
    }

    fn bytes(&mut self, field: u32, value: &[u8]) {
        self.key(field, 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
    }

    fn fixed32(&mut self, field: u32, value: [u8; 4]) {
        self.key(field, 5);
        self.0.extend(value);
    }
}

/// The way back, for tests.
#[cfg(test)]
pub(super) mod decoding {
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    pub(in crate::tensorboard) enum Decoded {
        Version(String),
        Restart { step: i64 },
        Scalar { tag: String, step: i64, value: f32 },
    }

    /// The events of a file, whose checksums must be right.
    pub(in crate::tensorboard) fn decode(mut file: &[u8]) -> Vec<Decoded> {
        let mut events = Vec::new();
        while !file.is_empty() {
            let length: [u8; 8] = take(&mut file, 8).try_into().unwrap();
            assert_eq!(number(take(&mut file, 4)), masked(crc32c::crc32c(&length)));
            let event = take(&mut file, u64::from_le_bytes(length) as usize);
            assert_eq!(number(take(&mut file, 4)), masked(crc32c::crc32c(event)));
            events.push(event_of(event));
        }
        events
    }

    fn take<'a>(from: &mut &'a [u8], length: usize) -> &'a [u8] {
        let (taken, rest) = from.split_at(length);
        *from = rest;
        taken
    }

    fn number(bytes: &[u8]) -> u32 {
        u32::from_le_bytes(bytes.try_into().unwrap())
    }

    fn varint(from: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = take(from, 1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    /// The fields of a message: their numbers and their bytes; of a varint, its eight.
    fn fields(mut message: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut fields = Vec::new();
        while !message.is_empty() {
            let key = varint(&mut message) as u32;
            let value = match key & 7 {
                0 => varint(&mut message).to_le_bytes().to_vec(),
                1 => take(&mut message, 8).to_vec(),
                2 => {
                    let length = varint(&mut message) as usize;
                    take(&mut message, length).to_vec()
                }
                5 => take(&mut message, 4).to_vec(),
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, value));
        }
        fields
    }

    fn event_of(event: &[u8]) -> Decoded {
        let fields_of_event = fields(event);
        let field = |number| {
            let found = fields_of_event.iter().find(|(field, _)| *field == number);
            found.map(|(_, value)| value.as_slice())
        };
        let step = field(EVENT_STEP).map_or(0, |step| i64::from_le_bytes(step.try_into().unwrap()));
        if let Some(version) = field(EVENT_FILE_VERSION) {
            return Decoded::Version(String::from_utf8(version.to_vec()).unwrap());
        }
        if let Some(log) = field(EVENT_SESSION_LOG) {
            assert_eq!(fields(log)[0].1[0], START as u8);
            return Decoded::Restart { step };
        }
        let summary = fields(field(EVENT_SUMMARY).unwrap());
        let scalar = fields(&summary[0].1);
        assert_eq!([scalar[0].0, scalar[1].0], [VALUE_TAG, VALUE_SIMPLE_VALUE]);
        Decoded::Scalar {
            tag: String::from_utf8(scalar[0].1.clone()).unwrap(),
            step,
            value: f32::from_le_bytes(scalar[1].1.as_slice().try_into().unwrap()),
        }
    }

    #[test]
    fn a_record_is_what_tensorflow_writes() {
        // By tensorboard 2.21: `RecordWriter.write(event.SerializeToString())` of `Event(wall_time=1.5, …)`.
        let scalar = What::Scalar {
            tag: "eval/loss",
            value: 2.0,
        };
        for (event, expected) in [
            (
                Event::at(1.5, 0, What::Version),
                "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c",
            ),
            (
                Event::at(1.5, 300, scalar),
                "200000000000000029eda95009000000000000f83f10ac022a120a100a096576616c2f6c6f737315\
                 00000040bfdf62c7",
            ),
        ] {
            let bytes = event.record();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected);
        }
    }
}
