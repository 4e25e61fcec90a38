//! Examples of the RFCs, and the canonical form beside hickory's.

use base64::Engine;
use hickory_proto::dnssec::TBS;
use hickory_proto::dnssec::rdata::SigInput;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::*;
use crate::validate::Bogus;

/// Zone, type, key (Base64), DS line, RRSIG fields, signature (Base64): RFC 8080 section 6.1, RFC 6605 sections 6.1 and 6.2.
#[test]
fn the_examples_of_the_rfcs_verify() {
    for (zone, algorithm, tag, key, digest, owner, record, times, signature) in [(
        "example.com",
        15u8,
        3613u16,
        "l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=",
        "3aa5ab37efce57f737fc1627013fee07bdf241bd10f3b1964ab55c78e79a304b",
        "example.com",
        (MX, [vec![0, 10], wire("mail.example.com")].concat()),
        (1_440_021_600u32, 1_438_207_200u32),
        "oL9krJun7xfBOIWcGHi7mag5/hdZrKWw15jPGrHpjQeRAvTdszaPD+QLs3fx8A4M3e23mRZ9VrbpMngwcrqNAg==",
    )] {
        let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).expect("Base64");
        let anchor = format!("{zone}. DS {tag} {algorithm} 2 {digest}");
        let mut net = Net::new();
        net.validator = Validator::new(Anchors::read(&anchor).expect("an anchor"), Limits::default());
        net.now = Now { mono: 1000, wall: Wall::at(u64::from(times.1 + 60) * 1000) };
        let labels = name(owner).as_ref().label_count() as u8;
        let (rtype, data) = record;
        let mut fields = rtype.to_be_bytes().to_vec();
        fields.extend([algorithm, labels]);
        for value in [3600, times.0, times.1] {
            fields.extend(value.to_be_bytes());
        }
        fields.extend(tag.to_be_bytes());
        fields.extend(wire(zone));
        let reply = Reply::answer(vec![
            (owner.into(), rtype, 3600, data),
            (owner.into(), RRSIG, 3600, [fields, decode(signature)].concat()),
        ]);
        // The RFC has no signature over the key: vouched for, and then unsigned.
        let dnskey = [&[1, 1, 3, algorithm][..], &decode(key)].concat();
        net.put(zone, DNSKEY, Reply::answer(vec![rec(zone, DNSKEY, dnskey.clone())]));
        assert_eq!(net.verdict(owner, rtype, &reply), Verdict::Bogus(Bogus::NoSignature), "the digest fits");
        let key = super::super::keys::Key::read(&dnskey).expect("a key");
        net.validator.zones.put(
            Partition::ALL,
            name(zone).as_ref(),
            super::super::zones::State::Zone(vec![key].into()),
            300,
            0,
            net.now.mono,
        );
        assert_eq!(net.verdict(owner, rtype, &reply), Verdict::Secure { ttl: 3600 });
        net.now.wall = Wall::at(u64::from(times.0 + 86_401) * 1000);
        assert_eq!(net.verdict(owner, rtype, &reply), Verdict::Bogus(Bogus::Expired));
    }
}

/// The same records as hickory orders and spells them: names compressed and in mixed case on the wire, in lower case where
/// they were signed (RFC 4034 section 6.2), each record once.
#[test]
fn the_canonical_form_is_hickorys() {
    let net = Net::new();
    let zone = net.zones["zone.example"].clone();
    let owner: Name = "www.zone.example.".parse().expect("a name");
    let mut records: Vec<Record> = ["Mail.Zone.Example.", "a.zone.example.", "b.test."]
        .iter()
        .enumerate()
        .map(|(i, exchange)| {
            let exchange = Name::from_ascii(exchange).expect("a name");
            let data = hickory_proto::rr::rdata::MX::new(10 + (i as u16 + 1) % 3, exchange);
            Record::from_rdata(owner.clone(), 300, RData::MX(data))
        })
        .collect();
    let input = SigInput {
        type_covered: RecordType::MX,
        algorithm: hickory_proto::dnssec::Algorithm::ED25519,
        num_labels: 3,
        original_ttl: 300,
        sig_expiration: (SECONDS + 3600).into(),
        sig_inception: (SECONDS - 3600).into(),
        key_tag: tag_of(&zone.dnskey),
        signer_name: "zone.example.".parse().expect("a name"),
    };
    let signed = TBS::from_input(&owner, DNSClass::IN, &input, records.iter()).expect("signed data");
    let signature = zone.key.sign(&signed).expect("a signature");
    let rrsig = hickory_proto::dnssec::rdata::RRSIG::from_sig(input, signature);
    // One twice, in another order, by hickory's own compression.
    records.push(records[0].clone());
    records.reverse();
    let mut message = hickory_proto::op::Message::response(7, hickory_proto::op::OpCode::Query);
    message.add_query(hickory_proto::op::Query::query(owner.clone(), RecordType::MX));
    message.add_answers(records);
    let rrsig = hickory_proto::dnssec::rdata::DNSSECRData::RRSIG(rrsig);
    message.add_answer(Record::from_rdata(owner, 300, RData::DNSSEC(rrsig)));
    let wire = message.to_vec().expect("a message");
    assert!(wire.windows(5).any(|part| part == b"\x04Mail"), "spelled as given");
    let mut net = net.anew();
    assert_eq!(net.judge_wire("www.zone.example", MX, &wire).0, Verdict::Secure { ttl: 300 });
}
