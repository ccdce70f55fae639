//! Signatures of the room "linalg".

operators! { LINALG;
}
