//! Signatures of the room "nn".

operators! { NN;
}
