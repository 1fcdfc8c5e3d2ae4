//! Blended back-off: one distribution from the successor counts of all context orders.
//!
//! Interpolated Witten–Bell, p_m = (c + T·p_{m−1}) / (N + T), with c of N occurrences of the order-m context
//! followed by the token and T distinct successors. Read from the longest order down, order m speaks for the
//! share N / (N + T) of what the longer orders left over.

/// A blended distribution over a few candidate tokens; the rest is left over.
#[derive(Clone, Debug, Default)]
pub struct Blend {
    /// (candidate, probability), in the order in which the evidence named them.
    pub candidates: Vec<(u32, f32)>,
    /// Probability of none of them.
    pub rest: f32,
}

impl Blend {
    /// Nothing is known yet.
    pub fn clear(&mut self) {
        self.candidates.clear();
        self.rest = 1.0;
    }

    /// Whether shorter contexts can still change anything (the share left for them is above `floor`).
    #[must_use]
    pub fn is_open(&self, floor: f32) -> bool {
        self.rest > floor
    }

    /// Adds the next shorter contexts: `orders` consecutive ones with the same successor counts.
    /// r equal steps p ← (c + T·p) / (N + T) are c/N · (1 − bʳ) + bʳ·p with b = T / (N + T).
    pub fn back_off(&mut self, successors: impl Iterator<Item = (u32, f32)>, total: f32, distinct: f32, orders: u32) {
        if total <= 0.0 {
            return;
        }
        let kept = (distinct / (total + distinct)).powi(orders.min(64).cast_signed());
        if kept >= 1.0 {
            return; // they weigh nothing any more
        }
        let share = self.rest * (1.0 - kept) / total;
        self.rest *= kept;
        let mut places = Places::of(&self.candidates);
        for (token, count) in successors {
            let p = share * count;
            if let Some(at) = places.find(&self.candidates, token) {
                self.candidates[at].1 += p;
            } else {
                self.candidates.push((token, p));
                places.put(token, self.candidates.len());
            }
        }
    }

    /// Drops the candidates that are less than `fraction` as likely as the best; what they had is left over.
    pub fn prune(&mut self, fraction: f32) {
        let least = fraction * self.candidates.iter().map(|c| c.1).fold(0.0, f32::max);
        let rest = &mut self.rest;
        self.candidates.retain(|c| {
            if c.1 < least {
                *rest += c.1;
            }
            c.1 >= least
        });
    }

    /// Drops a candidate; what it had is left over.
    pub fn forget(&mut self, token: u32) {
        self.rest += self.probability(token);
        self.candidates.retain(|c| c.0 != token);
    }

    /// Leaves to `other` what this one has left over.
    pub fn back_off_to(&mut self, other: &Self) {
        let rest = self.rest;
        for &(token, p) in &other.candidates {
            match self.candidates.iter_mut().find(|c| c.0 == token) {
                Some(c) => c.1 += rest * p,
                None => self.candidates.push((token, rest * p)),
            }
        }
        self.rest *= other.rest;
    }

    /// Probability of a candidate, 0 when it is none.
    #[must_use]
    pub fn probability(&self, token: u32) -> f32 {
        self.candidates.iter().find(|c| c.0 == token).map_or(0.0, |c| c.1)
    }
}

/// Places that are remembered.
const PLACES: usize = 128;

/// Where candidates stand, by the low bits of their tokens, counted from 1; 0: there is none with these bits.
struct Places([u8; PLACES]);

impl Places {
    fn of(candidates: &[(u32, f32)]) -> Self {
        let mut places = Self([0; PLACES]);
        for (c, nth) in candidates.iter().zip(1..) {
            places.put(c.0, nth);
        }
        places
    }

    fn put(&mut self, token: u32, nth: usize) {
        self.0[token as usize % PLACES] = u8::try_from(nth).unwrap_or(u8::MAX);
    }

    fn find(&self, candidates: &[(u32, f32)], token: u32) -> Option<usize> {
        let at = usize::from(self.0[token as usize % PLACES]).checked_sub(1)?;
        let here = candidates.get(at).is_some_and(|c| c.0 == token);
        if here { Some(at) } else { candidates.iter().position(|c| c.0 == token) }
    }
}
