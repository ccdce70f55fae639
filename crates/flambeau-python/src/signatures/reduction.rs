//! Signatures of the room "reduction".

operators! { REDUCTION;
}
