//! Signatures of the room "join".

operators! { JOIN;
}
