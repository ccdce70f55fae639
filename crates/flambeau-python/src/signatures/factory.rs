//! Signatures of the room "factory".

operators! { FACTORY;
}
