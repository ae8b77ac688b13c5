//! Every encoding of a key is read to one form, or refused with what to do.

use super::*;
use crate::trust::{PublicKey, Scheme};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
};
use ed25519_dalek::SigningKey;
use proptest::prelude::*;

const P256_PEM: &str = include_str!("../../../tests/fixtures/signing/keys/ci.pub");
const ED25519_PEM: &str = include_str!("../../../tests/fixtures/signing/keys/ed25519.pub");
const RSA_PEM: &str = include_str!("../../../tests/fixtures/signing/keys/rsa.pub");
const P384_PEM: &str = include_str!("../../../tests/fixtures/signing/keys/p384.pub");

fn block(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn read(text: &str) -> Result<CanonicalKey, InvalidKey> {
    CanonicalKey::read(text).map(|(key, _)| key)
}

fn refused(text: &str) -> InvalidKey {
    read(text).unwrap_err()
}

/// A SubjectPublicKeyInfo of an algorithm, given as its content, and a key.
fn info(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    tlv(0x30, &[tlv(0x30, algorithm), tlv(0x03, &[&[0], key].concat())].concat())
}

fn oid(id: ObjectIdentifier) -> Vec<u8> {
    tlv(0x06, id.as_bytes())
}

/// The length in more bytes than it takes, as BER allows.
fn with_long_length(der: &[u8]) -> Vec<u8> {
    match der[1] {
        short if short < 0x80 => [&[der[0], 0x81, short], &der[2..]].concat(),
        0x81 => [&[der[0], 0x82, 0], &der[2..]].concat(),
        _ => [&[der[0], 0x83, 0], &der[2..]].concat(),
    }
}

/// A certificate around a key, with fields that nobody looks at.
fn certificate(info: &[u8], with_version: bool) -> Vec<u8> {
    let version = if with_version { tlv(0xa0, &tlv(0x02, &[2])) } else { Vec::new() };
    let name = tlv(0x30, &[]);
    let fields =
        [version, tlv(0x02, &[1]), name.clone(), name.clone(), name.clone(), name.clone(), info.to_vec()];
    let extensions = tlv(0xa3, &name);
    let body = tlv(0x30, &[fields.concat(), extensions].concat());
    tlv(0x30, &[body, name, tlv(0x03, &[0, 1])].concat())
}

/// What an elliptic curve's point is, compressed.
fn compressed(point: &[u8]) -> Vec<u8> {
    let (x, y) = point[1..].split_at((point.len() - 1) / 2);
    [&[2 + (y[y.len() - 1] & 1)], x].concat()
}

#[test]
fn a_key_finds_its_scheme_and_keeps_its_text() {
    for (text, scheme) in [
        (P256_PEM, Scheme::EcdsaP256),
        (ED25519_PEM, Scheme::Ed25519),
        (RSA_PEM, Scheme::Rsa),
        (P384_PEM, Scheme::EcdsaP384),
    ] {
        let key = read(text).unwrap();
        assert_eq!((key.fitting().next(), key.pem().as_str()), (Some(scheme), text));
        assert_eq!(CanonicalKey::stored(&key.pem()).unwrap().id(), key.id());
        assert_eq!(PublicKey::from_pem(text, None).unwrap().scheme(), scheme);
    }
    let ed25519 = read(ED25519_PEM).unwrap();
    assert_eq!(ed25519.fitting().collect::<Vec<_>>(), [Scheme::Ed25519, Scheme::Ed25519ph]);
    assert_eq!(ed25519.by(Scheme::Ed25519ph).unwrap().id(), ed25519.id());
    assert!(matches!(read(P256_PEM).unwrap().by(Scheme::EcdsaP384), Err(InvalidKey::OtherScheme(..))));
}

#[test]
fn what_is_no_public_key_is_refused_with_what_to_do() {
    let (_, der) = pem_block(P256_PEM).unwrap();
    let point = &der[der.len() - 65..];
    let with =
        |curve: &[u8], point: &[u8]| block("PUBLIC KEY", &info(&[&oid(EC)[..], curve].concat(), point));
    assert_eq!(refused("hello"), InvalidKey::NotPem);
    assert_eq!(refused("{\"kty\": \"EC\"}"), InvalidKey::NotPem);
    assert_eq!(refused("-----BEGIN EC PRIVATE KEY-----\n"), InvalidKey::Private);
    assert_eq!(refused(&format!("{P256_PEM}{P256_PEM}")), InvalidKey::SeveralBlocks);
    assert_eq!(refused(&format!("Certificate:\n  Data\n{P256_PEM}")), InvalidKey::TextAround);
    assert_eq!(refused(&format!("{P256_PEM}comment")), InvalidKey::TextAround);
    assert_eq!(refused(&block("PUBLIC KEY", &[&der[..], b"x"].concat())), InvalidKey::NotDer("PUBLIC KEY"));
    assert_eq!(refused(&block("PUBLIC KEY", &with_long_length(&der))), InvalidKey::NotDer("PUBLIC KEY"));
    assert_eq!(refused(&block("RSA PUBLIC KEY", b"xx")), InvalidKey::NotDer("RSA PUBLIC KEY"));
    assert_eq!(refused(&block("CERTIFICATE", &der)), InvalidKey::NotDer("CERTIFICATE"));
    assert_eq!(refused(&block("PGP KEY", &der)), InvalidKey::OtherBlock("PGP KEY".into()));
    assert_eq!(refused(&with(&tlv(0x30, &[]), point)), InvalidKey::ExplicitCurve);
    assert_eq!(refused(&with(&oid(RSA), point)), InvalidKey::UnknownKind);
    assert_eq!(refused(&with(&oid(P256), &[0])), InvalidKey::UnknownKind, "the point at infinity");
    let mut off = point.to_vec();
    off[64] ^= 1;
    assert_eq!(refused(&with(&oid(P256), &off)), InvalidKey::UnknownKind, "no point of the curve");
    assert_eq!(refused(&block("PUBLIC KEY", &info(&oid(RSA_PSS), &[1]))), InvalidKey::Pss);
    let weak = |key: &[u8]| refused(&block("PUBLIC KEY", &info(&oid(ED25519), key)));
    assert_eq!(weak(&[[1].as_slice(), &[0; 31]].concat()), InvalidKey::SmallOrder);
    for refusal in
        [refused("x"), InvalidKey::ExplicitCurve, InvalidKey::SeveralBlocks, InvalidKey::NotDer("X")]
    {
        assert!(refusal.to_string().contains("openssl"), "{refusal}");
    }
}

#[test]
fn every_encoding_of_an_rsa_key_is_one_key() {
    let (_, der) = pem_block(RSA_PEM).unwrap();
    let one = read(RSA_PEM).unwrap();
    let parsed = SubjectPublicKeyInfoRef::from_der(&der).unwrap();
    let key = parsed.subject_public_key.as_bytes().unwrap();
    for text in [
        block("RSA PUBLIC KEY", key),
        block("PUBLIC KEY", &info(&oid(RSA), key)),
        block("CERTIFICATE", &certificate(&der, true)),
        block("CERTIFICATE", &certificate(&info(&oid(RSA), key), false)),
        RSA_PEM.replace('\n', "\r\n"),
        format!("\u{feff}\n  {RSA_PEM}\n\n"),
    ] {
        let other = read(&text).unwrap();
        assert_eq!((other.id(), other.der()), (one.id(), one.der()), "{text}");
    }
    let padded = {
        // The modulus with one more zero before it.
        let inner = &key[4..];
        let modulus = &inner[4..4 + usize::from(inner[2]) * 256 + usize::from(inner[3])];
        let rest = &inner[4 + modulus.len()..];
        tlv(0x30, &[tlv(0x02, &[&[0], modulus].concat()), rest.to_vec()].concat())
    };
    assert_eq!(refused(&block("RSA PUBLIC KEY", &padded)), InvalidKey::UnknownKind);
    let (_, given) = CanonicalKey::read(&block("CERTIFICATE", &certificate(&der, true))).unwrap();
    assert_eq!(given, GivenAs::Certificate);
}

#[test]
fn an_rsa_key_by_which_nothing_is_verified_is_refused_for_its_size() {
    let key = |bits: usize| {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] = 0xff >> (modulus.len() * 8 - bits);
        if modulus[0] & 0x80 != 0 {
            modulus.insert(0, 0);
        }
        block("RSA PUBLIC KEY", &tlv(0x30, &[tlv(0x02, &modulus), tlv(0x02, &[1, 0, 1])].concat()))
    };
    for bits in [512, 1024, 2047, 8193, 16384] {
        assert_eq!(refused(&key(bits)), InvalidKey::RsaSize(bits));
    }
    for bits in [2048, 3072, 8192] {
        read(&key(bits)).unwrap();
    }
}

#[test]
fn every_encoding_of_a_point_is_one_key() {
    for (algorithm, curve) in
        [(&ECDSA_P256_SHA256_ASN1_SIGNING, P256), (&ECDSA_P384_SHA384_ASN1_SIGNING, P384)]
    {
        for _ in 0..20 {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let point = pair.public_key().as_ref();
            let algorithm = [oid(EC), oid(curve)].concat();
            let one = read(&block("PUBLIC KEY", &info(&algorithm, point))).unwrap();
            assert_eq!(one.der(), info(&algorithm, point));
            let short = info(&algorithm, &compressed(point));
            for text in [block("PUBLIC KEY", &short), block("CERTIFICATE", &certificate(&short, true))] {
                let other = read(&text).unwrap();
                assert_eq!((other.id(), other.der()), (one.id(), one.der()));
            }
            let hybrid = [&[6 + (point[point.len() - 1] & 1)], &point[1..]].concat();
            match read(&block("PUBLIC KEY", &info(&algorithm, &hybrid))) {
                Ok(other) => assert_eq!(other.id(), one.id()),
                Err(why) => assert_eq!(why, InvalidKey::UnknownKind),
            }
        }
    }
}

#[test]
fn what_an_earlier_version_took_is_read_to_the_same_key() {
    let (_, der) = pem_block(P256_PEM).unwrap();
    let one = read(P256_PEM).unwrap();
    let short = info(&[oid(EC), oid(P256)].concat(), &compressed(&der[der.len() - 65..]));
    for former in [block("PUBLIC KEY", &[&der[..], b"xx"].concat()), block("PUBLIC KEY", &short)] {
        assert_eq!(CanonicalKey::of_earlier_version(&former, Family::P256).unwrap().id(), one.id());
    }
    for (text, family) in [(ED25519_PEM, Family::Ed25519), (RSA_PEM, Family::Rsa), (P384_PEM, Family::P384)] {
        let key = CanonicalKey::of_earlier_version(text, family).unwrap();
        assert_eq!(key.id(), read(text).unwrap().id());
    }
}

#[test]
fn hints_are_ids_in_hexadecimal_or_base64() {
    let key = read(P256_PEM).unwrap();
    let raw = hex::decode(key.id().as_str()).unwrap();
    for hint in [key.id().to_string(), STANDARD.encode(&raw), format!("SHA256:{}", key.id())] {
        assert_eq!(KeyId::from_hint(&hint).as_ref(), Some(key.id()), "{hint}");
    }
    for other in ["", "ci", "deadbeef"] {
        assert_eq!(KeyId::from_hint(other), None, "{other}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever stands around the bytes of a key, and whatever is changed in them, it is this key, another one in its
    /// own one form, or refused: never a second id for one key.
    #[test]
    fn an_encoding_is_the_one_form_or_no_key(
        seed in any::<[u8; 32]>(), width in 1_usize..90, crlf in any::<bool>(), at in 0_usize..44, flip in any::<u8>()
    ) {
        let verifying = SigningKey::from_bytes(&seed).verifying_key();
        let der = [&ED25519_PREFIX[..], verifying.as_bytes()].concat();
        let one = read(&block("PUBLIC KEY", &der)).unwrap();
        prop_assert_eq!(one.der(), &der[..]);
        let end = if crlf { "\r\n" } else { "\n" };
        let body: Vec<String> =
            STANDARD.encode(&der).as_bytes().chunks(width).map(|line| String::from_utf8_lossy(line).into()).collect();
        let text = format!("-----BEGIN PUBLIC KEY-----{end}{}{end}-----END PUBLIC KEY-----", body.join(end));
        let other = read(&text).unwrap();
        prop_assert_eq!(other.id(), one.id());
        let certified = read(&block("CERTIFICATE", &certificate(&der, crlf))).unwrap();
        prop_assert_eq!(certified.id(), one.id());

        let mut other = der.clone();
        other[at] ^= flip;
        if let Ok(key) = read(&block("PUBLIC KEY", &other)) {
            prop_assert_eq!(key.id() == one.id(), other == der);
            let again = CanonicalKey::stored(&key.pem()).unwrap();
            prop_assert_eq!(again.id(), key.id());
        }
    }
}
