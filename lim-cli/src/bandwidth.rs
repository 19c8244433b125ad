//! How fast a device reads memory: the yardstick of decode speed.

use crate::error::Result;
use crate::machine::Machine;

/// Memory to read, and the best speed so far. Other work on the machine only ever makes a reading slower, so readings
/// taken between the tests of a run tell what the run could have had at best.
pub(crate) struct Yardstick<M: Machine> {
    yard: M::Yard,
    best: f64,
}

impl<M: Machine> Yardstick<M> {
    /// A yardstick after a few readings.
    ///
    /// # Errors
    /// When the device has not the memory.
    pub(crate) fn new(machine: &mut M) -> Result<Self> {
        let mut yardstick = Yardstick { yard: machine.yard(), best: 0.0 };
        for _ in 0..4 {
            yardstick.read(machine)?;
        }
        Ok(yardstick)
    }

    /// Reads once more.
    ///
    /// # Errors
    /// As [`Yardstick::new`].
    pub(crate) fn read(&mut self, machine: &mut M) -> Result<()> {
        self.best = self.best.max(machine.bytes_per_s(&self.yard)?);
        Ok(())
    }

    /// Gigabytes a second of the best reading.
    pub(crate) fn gb_per_s(&self) -> f64 {
        self.best / 1e9
    }
}
