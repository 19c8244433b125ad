//! A contiguous row-major tensor: storage plus extents, the rank in the type.

/// `data` holds `shape.iter().product()` elements, last axis fastest. `S` is whatever the backend stores.
#[derive(Clone, Debug)]
pub struct Tensor<S, const R: usize> {
    data: S,
    shape: [usize; R],
}

impl<S, const R: usize> Tensor<S, R> {
    /// Pairs storage with its extents. The backend that made `data` vouches that it holds that many elements.
    pub fn new(data: S, shape: [usize; R]) -> Self {
        Tensor { data, shape }
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> [usize; R] {
        self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether any extent is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The storage.
    pub fn data(&self) -> &S {
        &self.data
    }

    /// The storage, to write.
    pub fn data_mut(&mut self) -> &mut S {
        &mut self.data
    }
}
