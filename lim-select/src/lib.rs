//! Token selection policies of sparse decode attention. To be filled.
