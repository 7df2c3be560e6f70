//! RFC 6455 frames by hand, so that a test can send what no library would.

/// A frame as it was on the wire, unmasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Data(Vec<u8>),
    Close { code: u16, reason: String },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

impl Frame {
    pub(crate) fn close(code: u16) -> Self {
        Self::Close {
            code,
            reason: String::new(),
        }
    }

    /// The bytes of this frame as a server sends it: final, unmasked. At most 65,535 payload bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (opcode, payload) = match self {
            Self::Data(data) => (2, data.clone()),
            Self::Close { code, reason } => (8, [&code.to_be_bytes(), reason.as_bytes()].concat()),
            Self::Ping(data) => (9, data.clone()),
            Self::Pong(data) => (10, data.clone()),
        };
        let mut bytes = vec![0x80 | opcode];
        match u8::try_from(payload.len()) {
            Ok(short @ ..126) => bytes.push(short),
            _ => {
                bytes.push(126);
                bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        bytes.extend(payload);
        bytes
    }

    /// Takes the first whole frame off `buffer`.
    pub(crate) fn take(buffer: &mut Vec<u8>) -> Option<Self> {
        let (&first, &second) = (buffer.first()?, buffer.get(1)?);
        let (length, mut at) = match second & 0x7f {
            126 => (
                u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?).into(),
                4,
            ),
            127 => (
                u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?) as usize,
                10,
            ),
            short => (usize::from(short), 2),
        };
        let mut mask = [0; 4];
        if second & 0x80 != 0 {
            mask = buffer.get(at..at + 4)?.try_into().ok()?;
            at += 4;
        }
        let masked = buffer.get(at..at + length)?;
        let payload: Vec<u8> = masked
            .iter()
            .zip(mask.iter().cycle())
            .map(|(b, m)| b ^ m)
            .collect();
        buffer.drain(..at + length);
        Some(match first & 0x0f {
            8 => match payload.split_at_checked(2) {
                Some((code, reason)) => Self::Close {
                    code: u16::from_be_bytes([code[0], code[1]]),
                    reason: String::from_utf8_lossy(reason).into_owned(),
                },
                None => Self::close(1005),
            },
            9 => Self::Ping(payload),
            10 => Self::Pong(payload),
            _ => Self::Data(payload),
        })
    }
}
