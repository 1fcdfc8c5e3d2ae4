//! Damaged copies of a good file, the same ones in every run.
use tasc_core::format::HEADER_BYTES;

/// Numbers that lengths and offsets should not be.
const EXTREME: [u32; 8] = [0, 1, 31, 33, 1 << 20, u32::MAX, u32::MAX - 1, i32::MAX as u32];

/// The next pseudo-random number (xorshift; `state` is not 0).
pub(crate) fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// `good` with one to four changes; in every third round cut short, in every third with a header checksum that is right.
pub(crate) fn damaged(good: &[u8], round: u64, state: &mut u64) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=random(state) % 4 {
        change(&mut bytes, state);
    }
    match round % 3 {
        0 => bytes.truncate(random(state) as usize % (bytes.len() + 1)),
        1 => reseal(&mut bytes),
        _ => {}
    }
    bytes
}

fn change(bytes: &mut [u8], state: &mut u64) {
    let at = random(state) as usize % bytes.len();
    match random(state) % 4 {
        0 => bytes[at] ^= 1 << (random(state) % 8),
        1 => bytes[at] = random(state) as u8,
        2 => {
            let at = (at & !3).min(bytes.len() - 4);
            let word = EXTREME[random(state) as usize % EXTREME.len()];
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        _ => {
            let from = random(state) as usize % bytes.len();
            let len = (random(state) as usize % 64).min(bytes.len() - from.max(at));
            bytes.copy_within(from..from + len, at);
        }
    }
}

/// The header checksum guards the table; recompute it, so that damage behind it is reached.
pub(crate) fn reseal(bytes: &mut [u8]) {
    let table = u64::from_le_bytes(bytes[56..64].try_into().unwrap()) as usize;
    let mut hashed = bytes[..HEADER_BYTES - 8].to_vec();
    hashed.extend(bytes.get(table..).unwrap_or(&[]));
    let sum = xxhash_rust::xxh3::xxh3_64(&hashed);
    bytes[HEADER_BYTES - 8..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
}
