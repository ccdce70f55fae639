//! Signatures of the room "random".

operators! { RANDOM;
}
