import java.io.IOException;
import java.io.PrintStream;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.MessageDigest;
import java.security.Signature;
import java.security.SignatureException;
import java.security.spec.PKCS8EncodedKeySpec;
import java.security.spec.X509EncodedKeySpec;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Supplier;
import javax.crypto.AEADBadTagException;
import javax.crypto.Cipher;
import javax.crypto.Mac;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;

/**
 * A second reader of sealbus's wire format, written from docs/wire-format.md alone; section numbers below are that
 * page's.
 *
 * <p>{@code java tools/OpenVectors.java tests/vectors/sealbus-v1.json} derives the keys from the root, verifies and
 * opens {@code sealed}, {@code derived} and {@code derived_plaintext}, compares every step with the file and prints the
 * payloads. Then each malformed variant of the values that it can read must be refused with the code that the file
 * lists. Exit 1 on any difference, 2 where the file cannot be read at all. Java 17, no other library.
 */
public final class OpenVectors {
    private static final HexFormat HEX = HexFormat.of();

    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        PrintStream err = new PrintStream(System.err, true, StandardCharsets.UTF_8);
        if (arguments.length != 1) {
            err.println("usage: java OpenVectors.java sealbus-v1.json");
            System.exit(2);
        }
        Check check;
        try {
            check = new Check(new Json(utf8(Files.readAllBytes(Path.of(arguments[0])))).document(), out, err);
        } catch (IOException | IllegalArgumentException error) {
            err.println(arguments[0] + ": " + error);
            System.exit(2);
            return;
        }
        check.step("keys", check::keys);
        check.step("profile, envelope", check::envelope);
        check.step("sealed", check::sealed);
        check.step("certificate", check::certificate);
        check.step("derived", () -> check.derived("derived"));
        check.step("derived_plaintext", () -> check.derived("derived_plaintext"));
        check.step("malformed", check::malformed);
        out.println(check.compared + " values compared, " + check.differences + " differences");
        System.exit(check.differences == 0 ? 0 : 1);
    }

    // ---- 1.1 Notation -------------------------------------------------------------------------------------------

    static byte[] join(byte[]... parts) {
        ByteBuffer whole = ByteBuffer.allocate(Arrays.stream(parts).mapToInt(part -> part.length).sum());
        for (byte[] part : parts) {
            whole.put(part);
        }
        return whole.array();
    }

    static byte[] u16(int value) {
        return ByteBuffer.allocate(2).putShort((short) value).array();
    }

    static byte[] u32(long value) {
        return ByteBuffer.allocate(4).putInt((int) value).array();
    }

    static byte[] u64(long value) {
        return ByteBuffer.allocate(8).putLong(value).array();
    }

    static byte[] ascii(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static byte[] slice(byte[] data, int from, int to) {
        return Arrays.copyOfRange(data, from, to);
    }

    static byte[] hash(byte[]... parts) {
        try {
            return MessageDigest.getInstance("SHA-256").digest(join(parts));
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException(error);
        }
    }

    static byte[] hmac(byte[] key, byte[] message) {
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(key, "HmacSHA256"));
            return mac.doFinal(message);
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException(error);
        }
    }

    /** HKDF-Expand (RFC 5869, 2.3) of at most one block: all that the format asks for. */
    static byte[] expand(byte[] key, byte[] info, int size) {
        return slice(hmac(key, join(info, new byte[] {1})), 0, size);
    }

    private static byte[] gcm(int mode, byte[] key, byte[] nonce, byte[] aad, byte[] data)
            throws GeneralSecurityException {
        Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
        cipher.init(mode, new SecretKeySpec(key, "AES"), new GCMParameterSpec(128, nonce));
        cipher.updateAAD(aad);
        return cipher.doFinal(data);
    }

    static byte[] sealGcm(byte[] key, byte[] nonce, byte[] aad, byte[] plaintext) {
        try {
            return gcm(Cipher.ENCRYPT_MODE, key, nonce, aad, plaintext);
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException(error);
        }
    }

    static byte[] openGcm(byte[] key, byte[] nonce, byte[] aad, byte[] body) {
        if (body.length < 16) {
            throw new Refused("open", "shorter than a tag");
        }
        try {
            return gcm(Cipher.DECRYPT_MODE, key, nonce, aad, body);
        } catch (AEADBadTagException error) {
            throw new Refused("open", "the tag does not hold");
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException(error);
        }
    }

    // The JDK takes Ed25519 keys in their ASN.1 frames (RFC 8410); the raw 32 bytes stand at the end of both.
    private static final byte[] PUBLIC_FRAME = HEX.parseHex("302a300506032b6570032100");
    private static final byte[] PRIVATE_FRAME = HEX.parseHex("302e020100300506032b657004220420");

    static void verify(byte[] publicKey, byte[] message, byte[] signature) {
        try {
            Signature verifier = Signature.getInstance("Ed25519");
            KeyFactory keys = KeyFactory.getInstance("Ed25519");
            verifier.initVerify(keys.generatePublic(new X509EncodedKeySpec(join(PUBLIC_FRAME, publicKey))));
            verifier.update(message);
            if (verifier.verify(signature)) {
                return;
            }
        } catch (SignatureException error) {
            throw new Refused("unverified", "not a signature: " + error.getMessage());
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException(error);
        }
        throw new Refused("unverified", "the signature does not hold");
    }

    static byte[] sign(byte[] seed, byte[] message) {
        try {
            Signature signer = Signature.getInstance("Ed25519");
            KeyFactory keys = KeyFactory.getInstance("Ed25519");
            signer.initSign(keys.generatePrivate(new PKCS8EncodedKeySpec(join(PRIVATE_FRAME, seed))));
            signer.update(message);
            return signer.sign();
        } catch (GeneralSecurityException error) {
            throw new IllegalStateException(error);
        }
    }

    /** Well-formed UTF-8 only: the decoder reports surrogates and over-long forms. */
    static String utf8(byte[] data) throws CharacterCodingException {
        return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(data)).toString();
    }

    /** A value is given up, final, with a code of section 17. */
    static final class Refused extends RuntimeException {
        private static final long serialVersionUID = 1;
        final String code;

        Refused(String code, String why) {
            super(code + ": " + why);
            this.code = code;
        }
    }

    // ---- 1.3 Markers, 1.6 suite ---------------------------------------------------------------------------------

    static final byte[] SEALED = HEX.parseHex("c301d89e7f5dca02e35b");
    static final byte[] DERIVED = HEX.parseHex("c301bbb73d5705ce981f");
    static final byte[] ENVELOPE = HEX.parseHex("c301ce963f5b02c69ef6");
    static final byte[] CERTIFICATE = HEX.parseHex("c3011b0bbac7d3356e0f");
    static final byte[] SUITE = {0, 1};

    // ---- 1.4 Canonical Avro -------------------------------------------------------------------------------------

    /** Reads canonical Avro and fixed fields; whatever is not canonical is refused with the code it was made with. */
    static final class Cursor {
        private final byte[] data;
        private final String code;
        int at;

        Cursor(byte[] data, int at, String code) {
            this.data = data;
            this.at = at;
            this.code = code;
        }

        Refused refuse(String why) {
            return new Refused(code, why + " before byte " + at);
        }

        byte[] fixed(int size) {
            if (size > data.length - at) {
                throw refuse("cut");
            }
            at += size;
            return slice(data, at - size, at);
        }

        int octet() {
            return fixed(1)[0] & 0xFF;
        }

        long unsigned(int size) {
            return new BigInteger(1, fixed(size)).longValue();
        }

        /** A count or size: shortest form, not negative, at most 5 bytes long, within {@code limit}. */
        int length(int limit) {
            long value = 0;
            for (int place = 0; place < 5; place++) {
                int next = octet();
                value |= (long) (next & 0x7F) << 7 * place;
                if (next < 0x80) {
                    if ((next == 0 && place > 0) || (value & 1) == 1) {
                        throw refuse("a length that is negative or not in its shortest form");
                    }
                    if (value >> 1 > limit) {
                        throw refuse("a length over " + limit);
                    }
                    return (int) (value >> 1);
                }
            }
            throw refuse("a length of more than 5 bytes");
        }

        byte[] bytes(int limit) {
            return fixed(length(Math.min(limit, data.length)));
        }

        String string(int limit) {
            try {
                return utf8(bytes(limit));
            } catch (CharacterCodingException error) {
                throw refuse("not UTF-8");
            }
        }

        String symbol(String... symbols) {
            int index = length(symbols.length - 1); // an index is no longer and not negative, as a length is
            return symbols[index];
        }

        boolean bool() {
            int value = octet();
            if (value > 1) {
                throw refuse("not a boolean");
            }
            return value == 1;
        }

        /** One block or none. */
        <T> List<T> array(int limit, Supplier<T> item) {
            List<T> items = new ArrayList<>();
            int count = length(limit);
            for (int index = 0; index < count; index++) {
                items.add(item.get());
            }
            if (count > 0) {
                zero();
            }
            return items;
        }

        void zero() {
            if (octet() != 0) {
                throw refuse("a second block");
            }
        }

        void end() {
            if (at != data.length) {
                throw refuse("trailing bytes");
            }
        }
    }

    static byte[] prefixed(byte[] data) {
        ByteBuffer length = ByteBuffer.allocate(5);
        long value = 2L * data.length;
        for (; value > 0x7F; value >>= 7) {
            length.put((byte) (value & 0x7F | 0x80));
        }
        length.put((byte) value);
        return join(slice(length.array(), 0, length.position()), data);
    }

    // ---- 1.5 Preimages ------------------------------------------------------------------------------------------

    static byte[] part(byte[] data) {
        return join(u16(data.length), data);
    }

    static byte[] part(String text) {
        return part(ascii(text));
    }

    static byte[] label(String use) {
        return part("sealbus/v1/" + use);
    }

    /** Where a value stands and is read; a malformed variant may change one of these. */
    record Place(byte[] deployment, String topic, int partition, String zone, String domain) {
        byte[] preimage(String use) {
            return join(label(use), deployment, part(topic), u32(partition));
        }
    }

    // ---- 2 Keys -------------------------------------------------------------------------------------------------

    record Agent(byte[] keyId, byte[] mac, byte[] seal, String inputTopic) {}

    record ReadingKey(String name, byte[] id, byte[] kek) {
        static ReadingKey of(String name, byte[] root, byte[] info) {
            byte[] kek = expand(root, info, 32);
            return new ReadingKey(name, expand(kek, label("key/reader-id"), 8), kek);
        }
    }

    static byte[] agentInfo(String agent, String purpose) {
        return join(label("key/agent"), part(agent), part(purpose));
    }

    static byte[] purposeInfo(String purpose) {
        return join(label("key/purpose"), part(purpose));
    }

    static byte[] roleInfo(String role, String tenant) {
        return join(label("key/role"), part(role), part(tenant));
    }

    static byte[] targetInfo(String agent) {
        return join(label("key/target"), part(agent));
    }

    static byte[] instanceInfo(byte[] instance) {
        return join(label("key/instance/seal"), instance);
    }

    // ---- 3 Sealed -----------------------------------------------------------------------------------------------

    record Sealed(byte[] header, byte[] instance, long sequence, byte[] mac, byte[] tail, byte[] body, byte[] frame) {}

    /** Steps 1 to 5 and 8; 6 and 7 need the append time and what was read before. Step 9 is the caller's. */
    static Sealed readSealed(byte[] value, Agent agent, Place place) {
        if (value.length < 101 || value.length > 1_000_000) {
            throw new Refused("bounds", "size " + value.length);
        }
        if (!Arrays.equals(slice(value, 0, 12), join(SEALED, SUITE))) {
            throw new Refused("version", "marker or suite");
        }
        Cursor in = new Cursor(value, 84, "bounds");
        byte[] body = in.bytes(value.length);
        in.end();
        if (!Arrays.equals(slice(value, 12, 28), agent.keyId)) {
            throw new Refused("unknown-key", "no such agent");
        }
        if (!place.topic.equals(agent.inputTopic)) {
            throw new Refused("wrong-domain", "the key is for " + agent.inputTopic);
        }
        byte[] header = slice(value, 0, 52);
        byte[] mac = slice(value, 52, 84);
        byte[] tail = slice(value, 84, value.length);
        if (!MessageDigest.isEqual(mac, hmac(agent.mac, sealedMacInput(place, header, tail)))) {
            throw new Refused("mac", "the MAC does not hold");
        }
        byte[] instance = slice(header, 28, 44);
        byte[] key = expand(agent.seal, instanceInfo(instance), 32);
        byte[] frame = openGcm(key, sealedNonce(place, header), sealedAad(place, header), body);
        return new Sealed(header, instance, new Cursor(header, 44, "bounds").unsigned(8), mac, tail, body, frame);
    }

    static byte[] sealedMacInput(Place place, byte[] header, byte[] tail) {
        return join(place.preimage("sealed/mac"), header, tail);
    }

    static byte[] sealedAad(Place place, byte[] header) {
        return join(place.preimage("sealed/aad"), header);
    }

    static byte[] sealedNonce(Place place, byte[] header) {
        return join(u32(place.partition), slice(header, 44, 52));
    }

    // ---- 4 Envelope ---------------------------------------------------------------------------------------------

    /** 4.1: the content of a frame. */
    static byte[] unframe(byte[] frame) {
        Cursor in = new Cursor(frame, 0, "decode");
        long size = in.unsigned(4);
        if (size > frame.length - 4) {
            throw in.refuse("a length over the rest");
        }
        byte[] content = in.fixed((int) size);
        while (in.at < frame.length) {
            if (in.octet() != 0) {
                throw in.refuse("padding that is not zeros");
            }
        }
        return content;
    }

    record Envelope(byte[] profile, Map<String, Object> profileFields, byte[] message,
            Map<String, Object> messageFields, byte[] payload) {}

    /** 4.2. Fields have the names and the shapes of the vectors; bytes are hexadecimal. */
    static Envelope readEnvelope(byte[] content) {
        Cursor in = new Cursor(content, 0, "decode");
        if (!Arrays.equals(in.fixed(10), ENVELOPE)) {
            throw in.refuse("another marker");
        }
        byte[] profile = in.bytes(16_384);
        int start = in.at;
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("message_id", HEX.formatHex(in.fixed(16)));
        fields.put("created_at", in.unsigned(8));
        fields.put("expires_at", in.unsigned(8));
        fields.put("correlation_id", in.string(63));
        fields.put("causation_ids", in.array(63, () -> HEX.formatHex(in.fixed(16))));
        fields.put("reply_to", in.string(63));
        fields.put("tickets", in.array(16, () -> HEX.formatHex(in.bytes(512))));
        fields.put("traceparent", in.string(63));
        fields.put("chunk", in.symbol("null", "chunk").equals("null") ? null : readChunk(in));
        fields.put("field_protection", in.array(32, () -> List.of(in.string(16_384), in.string(16_384))));
        byte[] message = slice(content, start, in.at);
        byte[] payload = in.bytes(content.length);
        in.end();
        return new Envelope(profile, readProfile(profile), message, fields, payload);
    }

    private static Map<String, Object> readChunk(Cursor in) {
        Map<String, Object> chunk = new LinkedHashMap<>();
        chunk.put("group", HEX.formatHex(in.fixed(16)));
        chunk.put("index", in.unsigned(4));
        chunk.put("count", in.unsigned(4));
        return chunk;
    }

    /** 4.3. */
    static Map<String, Object> readProfile(byte[] profile) {
        Cursor in = new Cursor(profile, 0, "decode");
        int any = profile.length;
        if (any > 16_384) {
            throw in.refuse("a profile over 16,384 bytes");
        }
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("source", in.string(any));
        fields.put("domain", in.string(any));
        fields.put("kind", in.symbol("MESSAGE", "RPC_REQUEST", "RPC_REPLY", "TOOL_CALL", "TOOL_RESULT", "REASONING",
                "MEMORY", "ARTIFACT"));
        fields.put("target", in.string(any));
        fields.put("tool", in.string(any));
        fields.put("task_type", in.string(any));
        fields.put("labels", in.array(32, () -> in.string(any)));
        fields.put("purpose", in.string(any));
        fields.put("tier_floor", in.symbol("NONE", "PLAINTEXT", "RETRIEVAL", "COMPUTATION", "FHE"));
        fields.put("protect_at", in.symbol("POLICY", "SOURCE", "ENFORCER"));
        fields.put("notify", in.bool());
        fields.put("content_type", in.string(any));
        fields.put("schema", HEX.formatHex(in.bytes(any)));
        fields.put("metadata", readMap(in, 64, any));
        fields.put("on_behalf_of", HEX.formatHex(in.bytes(any)));
        fields.put("delegation", HEX.formatHex(in.bytes(any)));
        in.end();
        return fields;
    }

    private static Map<String, Object> readMap(Cursor in, int limit, int any) {
        Map<String, Object> map = new LinkedHashMap<>();
        byte[][] last = {null};
        in.array(limit, () -> {
            String key = in.string(any);
            byte[] name = ascii(key);
            if (last[0] != null && Arrays.compareUnsigned(last[0], name) >= 0) {
                throw in.refuse("map keys that do not ascend");
            }
            last[0] = name;
            return map.put(key, in.string(any));
        });
        return map;
    }

    // ---- 5 Derived ----------------------------------------------------------------------------------------------

    record Head(byte[] bytes, int tier, long epoch, byte[] signer, long decidedAt, int count) {}

    record ReaderSet(byte[] commitment, List<Wrapped> entries) {}

    record Wrapped(byte[] readerKeyId, byte[] wrapped) {}

    /** {@code index}: place of a record (2 bytes) and token (16), each. */
    record KeyTable(List<ReaderSet> sets, List<byte[]> index) {}

    record Entry(byte[] recordId, int readerSet, long counter, byte[] body) {
        byte[] fixedFields() {
            return join(recordId, u16(readerSet), u64(counter));
        }
    }

    record Bundle(Head head, byte[] keyTable, KeyTable table, List<Entry> entries, byte[] signature) {
        List<byte[]> leaves() { // 5.5
            return entries.stream()
                    .map(each -> hash(new byte[] {0}, head.bytes, each.fixedFields(), each.body))
                    .toList();
        }

        byte[] message(Place place) { // 5.5
            return join(place.preimage("derived/signature"), head.bytes, hash(keyTable), treeRoot(leaves()));
        }

        byte[] aad(Place place, Entry entry) { // 5.4
            byte[] commitment = table.sets.get(entry.readerSet).commitment;
            return join(place.preimage("derived/aad"), head.bytes, commitment, entry.recordId);
        }

        byte[] wrapAad(Place place, ReaderSet set) { // 5.3
            return join(label("wrap"), place.deployment, part(place.topic), u64(head.epoch), set.commitment);
        }
    }

    private static final int NO_SET = 65_535;
    private static final int PLAINTEXT = 0;
    private static final int RETRIEVAL = 1;

    /** 5.6, step 1. */
    static Bundle frameDerived(byte[] value) {
        Cursor in = new Cursor(value, 0, "bounds");
        if (!Arrays.equals(in.fixed(10), DERIVED)) {
            throw new Refused("version", "another marker");
        }
        if (value.length < 168 || value.length > 1_048_064) {
            throw in.refuse("size " + value.length);
        }
        Head head = readHead(in.fixed(93));
        byte[] keyTable = in.bytes(value.length);
        KeyTable table = readKeyTable(keyTable);
        List<Entry> entries = in.array(32, () -> {
            Entry entry = new Entry(in.fixed(16), (int) in.unsigned(2), in.unsigned(8), in.bytes(value.length));
            if (entry.readerSet >= table.sets.size() && (entry.readerSet != NO_SET || head.tier != PLAINTEXT)) {
                throw in.refuse("reader set " + entry.readerSet);
            }
            return entry;
        });
        if (entries.size() != head.count) {
            throw in.refuse("not as many records as the head says");
        }
        for (byte[] token : table.index) {
            if (new BigInteger(1, slice(token, 0, 2)).intValue() >= entries.size()) {
                throw in.refuse("a token of a record that is not there");
            }
        }
        byte[] signature = in.fixed(64);
        in.end();
        return new Bundle(head, keyTable, table, entries, signature);
    }

    /** 5.1. */
    private static Head readHead(byte[] bytes) {
        Cursor in = new Cursor(bytes, 0, "bounds");
        if (!Arrays.equals(in.fixed(2), SUITE)) {
            throw new Refused("version", "another suite");
        }
        int tier = in.octet();
        long epoch = in.unsigned(8);
        in.fixed(32); // policy digest
        byte[] signer = in.fixed(16);
        in.fixed(16 + 8); // instance, sequence
        long decidedAt = in.unsigned(8);
        int count = (int) in.unsigned(2);
        if (tier > 3 || count < 1 || count > 32) {
            throw in.refuse("tier " + tier + ", count " + count);
        }
        return new Head(bytes, tier, epoch, signer, decidedAt, count);
    }

    /** 5.2. */
    private static KeyTable readKeyTable(byte[] table) {
        Cursor in = new Cursor(table, 0, "bounds");
        List<ReaderSet> sets = in.array(32, () -> {
            byte[] commitment = in.fixed(32);
            List<Wrapped> entries = in.array(63, () -> new Wrapped(in.fixed(8), in.fixed(60)));
            if (entries.isEmpty()) {
                throw in.refuse("a reader set without readers");
            }
            return new ReaderSet(commitment, entries);
        });
        List<byte[]> index = in.array(2048, () -> in.fixed(18));
        for (int at = 1; at < index.size(); at++) {
            if (Arrays.compareUnsigned(index.get(at - 1), index.get(at)) >= 0) {
                throw in.refuse("an index out of order");
            }
        }
        in.end();
        return new KeyTable(sets, index);
    }

    /** 5.5: RFC 6962, section 2.1. */
    static byte[] treeRoot(List<byte[]> leaves) {
        if (leaves.size() == 1) {
            return leaves.get(0);
        }
        int cut = Integer.highestOneBit(leaves.size() - 1);
        byte[] left = treeRoot(leaves.subList(0, cut));
        return hash(new byte[] {1}, left, treeRoot(leaves.subList(cut, leaves.size())));
    }

    /** 5.6, steps 2 and 3. */
    static void verifyDerived(Bundle bundle, Certificate certificate, Place place) {
        Head head = bundle.head;
        if (!Arrays.equals(head.signer, certificate.keyId)
                || Long.compareUnsigned(head.decidedAt, certificate.notBefore) < 0
                || Long.compareUnsigned(head.decidedAt, certificate.notAfter) > 0
                || !certificate.zones.contains(place.zone)
                || !certificate.domains.contains(place.domain)) {
            throw new Refused("unverified", "no certificate for this signer, time, zone and domain");
        }
        verify(certificate.publicKey, bundle.message(place), bundle.signature);
    }

    /** 5.3 and 5.6, steps 4 and 5: the DEK of a set, or null where it has no entry for the reader. */
    static byte[] unwrap(Bundle bundle, ReaderSet set, List<ReadingKey> keys, Place place) {
        for (Wrapped entry : set.entries) {
            for (ReadingKey key : keys) {
                if (Arrays.equals(entry.readerKeyId, key.id)) {
                    byte[] nonce = slice(entry.wrapped, 0, 12);
                    byte[] dek = openGcm(key.kek, nonce, bundle.wrapAad(place, set), slice(entry.wrapped, 12, 60));
                    if (!MessageDigest.isEqual(hash(label("dek"), dek), set.commitment)) {
                        throw new Refused("open", "the DEK is not what the set commits to");
                    }
                    return dek;
                }
            }
        }
        return null;
    }

    /** 5.6, steps 4 to 6: the frame of an entry, or null where it is not the reader's. */
    static byte[] openEntry(Bundle bundle, Entry entry, List<ReadingKey> keys, Place place) {
        if (bundle.head.tier == PLAINTEXT) {
            return entry.body;
        }
        byte[] dek = unwrap(bundle, bundle.table.sets.get(entry.readerSet), keys, place);
        if (dek == null || bundle.head.tier != RETRIEVAL) {
            return null; // the bodies of the tiers above are not laid out in this version
        }
        return openGcm(dek, join(u32(0), u64(entry.counter)), bundle.aad(place, entry), entry.body);
    }

    // ---- 6 Released ---------------------------------------------------------------------------------------------

    record Released(byte[] decisionId, byte[] ticket, byte[] content, Envelope envelope) {}

    static Released readReleased(byte[] value) {
        Cursor in = new Cursor(value, 0, "decode");
        byte[] decisionId = in.fixed(10);
        byte[] ticket = in.bytes(value.length);
        byte[] content = in.bytes(value.length);
        in.end();
        return new Released(decisionId, ticket, content, readEnvelope(content));
    }

    static void readDerived(byte[] value, Certificate certificate, List<ReadingKey> keys, Place place) {
        Bundle bundle = frameDerived(value);
        verifyDerived(bundle, certificate, place);
        for (Entry entry : bundle.entries) {
            byte[] frame = openEntry(bundle, entry, keys, place);
            if (frame != null) {
                readReleased(unframe(frame));
            }
        }
    }

    // ---- 13 Signed objects, 13.2 EnforcerCertificate ------------------------------------------------------------

    record Certificate(byte[] keyId, byte[] publicKey, long notBefore, long notAfter, List<String> zones,
            List<String> domains) {}

    static byte[] certificateMessage(byte[] value) {
        return join(label("enforcer-certificate"), slice(value, 0, value.length - 64));
    }

    static Certificate readCertificate(byte[] value, byte[] anchor, byte[] deployment) {
        if (value.length < 64) {
            throw new Refused("unverified", "shorter than a signature");
        }
        verify(anchor, certificateMessage(value), slice(value, value.length - 64, value.length));
        Cursor in = new Cursor(value, 0, "decode");
        if (!Arrays.equals(in.fixed(10), CERTIFICATE)) {
            throw new Refused("version", "another marker");
        }
        byte[] of = in.fixed(16);
        byte[] keyId = in.fixed(16);
        byte[] publicKey = in.fixed(32);
        long notBefore = in.unsigned(8);
        long notAfter = in.unsigned(8);
        in.string(value.length); // name
        List<String> zones = in.array(value.length, () -> in.string(value.length));
        List<String> domains = in.array(value.length, () -> in.string(value.length));
        in.fixed(64); // signature
        in.end();
        if (!Arrays.equals(of, deployment)) {
            throw new Refused("unverified", "of another deployment");
        }
        if (!Arrays.equals(keyId, slice(hash(publicKey), 0, 16))) {
            throw new Refused("unverified", "the key id is not the key's");
        }
        return new Certificate(keyId, publicKey, notBefore, notAfter, zones, domains);
    }

    // ---- 18 Vectors ---------------------------------------------------------------------------------------------

    /** Compares what is computed here with what the file says. */
    static final class Check {
        private final Map<String, Object> document;
        private final PrintStream out;
        private final PrintStream err;
        int compared;
        int differences;

        Check(Map<String, Object> document, PrintStream out, PrintStream err) {
            this.document = document;
            this.out = out;
            this.err = err;
        }

        /** A step that cannot be finished is one difference; the others are still done. */
        void step(String name, Runnable body) {
            try {
                body.run();
            } catch (RuntimeException error) {
                differ(name, "cannot be finished: " + error);
            }
        }

        private void differ(String path, String why) {
            differences++;
            err.println("DIFFERENCE " + path + ": " + why);
        }

        private void same(String path, Object made) {
            compared++;
            Object told = told(path);
            Object found = made instanceof byte[] bytes ? HEX.formatHex(bytes) : made;
            if (found instanceof Integer number) {
                found = number.longValue();
            }
            if (!told.equals(found)) {
                differ(path, "expected " + told + ", found " + found);
            }
        }

        /** What stands at a dotted path. */
        private Object told(String path) {
            Object value = document;
            for (String name : path.split("\\.")) {
                value = value instanceof List<?> list
                        ? list.get(Integer.parseInt(name))
                        : ((Map<?, ?>) value).get(name);
                if (value == null) {
                    throw new IllegalArgumentException("nothing at " + path);
                }
            }
            return value;
        }

        private String text(String path) {
            return (String) told(path);
        }

        private byte[] raw(String path) {
            return HEX.parseHex(text(path));
        }

        private int number(String path) {
            return Math.toIntExact((Long) told(path));
        }

        private int size(String path) {
            return ((List<?>) told(path)).size();
        }

        private Place place(String topic) {
            return new Place(raw("inputs.deployment"), topic, number("inputs.partition"), text("inputs.zone"),
                    text("inputs.domain"));
        }

        private Place input() {
            return place(text("inputs.topics.in"));
        }

        private Place output() {
            return place(text("inputs.topics.out"));
        }

        private Agent agent() {
            byte[] root = raw("inputs.root");
            String name = text("inputs.agent");
            String topic = text("inputs.zone") + "." + text("inputs.domain") + ".in"; // 1.2
            return new Agent(expand(root, agentInfo(name, "key-id"), 16), expand(root, agentInfo(name, "mac"), 32),
                    expand(root, agentInfo(name, "seal"), 32), topic);
        }

        private List<ReadingKey> readers() {
            byte[] root = raw("inputs.root");
            List<ReadingKey> keys = new ArrayList<>();
            for (int index = 0; index < size("inputs.roles"); index++) {
                String role = text("inputs.roles." + index);
                keys.add(ReadingKey.of(role, root, roleInfo(role, "")));
            }
            keys.add(ReadingKey.of(text("inputs.target"), root, targetInfo(text("inputs.target"))));
            return keys;
        }

        /** Section 2, and the markers that this reader knows. */
        void keys() {
            byte[] root = raw("inputs.root");
            String agent = text("inputs.agent");
            Map<String, Integer> sizes =
                    Map.of("key-id", 16, "mac", 32, "seal", 32, "notice", 32, "notice-key-id", 16);
            sizes.forEach((purpose, size) -> key("keys.agent." + purpose, root, agentInfo(agent, purpose), size));
            for (int index = 0; index < size("inputs.roles"); index++) {
                String role = text("inputs.roles." + index);
                reading("keys.roles." + role, root, roleInfo(role, ""));
            }
            reading("keys.role_of_tenant", root, roleInfo(text("inputs.roles.0"), text("inputs.tenant")));
            reading("keys.target", root, targetInfo(text("inputs.target")));
            key("keys.dead", root, purposeInfo("dead"), 32);
            key("keys.root_commitment", root, purposeInfo("commitment"), 32);
            for (String purpose : List.of("block", "ledger", "search")) {
                key("keys.audit." + purpose, raw("inputs.audit_root"), purposeInfo(purpose), 32);
            }
            same("markers.sealed", SEALED);
            same("markers.derived", DERIVED);
            same("markers.envelope", ENVELOPE);
            same("markers.enforcer_certificate", CERTIFICATE);
        }

        private void key(String path, byte[] from, byte[] info, int size) {
            same(path + ".info", info);
            same(path + ".value", expand(from, info, size));
        }

        private void reading(String path, byte[] root, byte[] info) {
            key(path, root, info, 32);
            same(path + ".reader_key_id", ReadingKey.of(path, root, info).id);
        }

        /** Section 4. */
        void envelope() {
            byte[] frame = raw("envelope.frame");
            byte[] content = unframe(frame);
            same("envelope.content", content);
            Envelope read = readEnvelope(content);
            same("envelope.profile", read.profile);
            same("profile.value", read.profile);
            same("profile.fields", read.profileFields);
            same("envelope.message", read.message);
            same("envelope.message_fields", read.messageFields);
            same("envelope.payload", read.payload);
            same("envelope.content", join(ENVELOPE, prefixed(read.profile), read.message, prefixed(read.payload)));
            int cell = number("envelope.cell");
            byte[] zeros = new byte[Math.floorMod(-(4 + content.length), cell)];
            same("envelope.frame", join(u32(content.length), content, zeros));
        }

        /** Section 3. */
        void sealed() {
            Agent agent = agent();
            Place place = input();
            Sealed read = readSealed(raw("sealed.value"), agent, place);
            byte[] header = join(SEALED, SUITE, agent.keyId, read.instance, u64(read.sequence));
            byte[] key = expand(agent.seal, instanceInfo(read.instance), 32);
            same("sealed.topic", place.topic);
            same("sealed.partition", place.partition);
            same("sealed.instance", read.instance);
            same("sealed.sequence", read.sequence);
            same("sealed.instance_key.info", instanceInfo(read.instance));
            same("sealed.instance_key.value", key);
            same("sealed.header", header);
            same("sealed.nonce", sealedNonce(place, header));
            same("sealed.aad", sealedAad(place, header));
            same("sealed.plaintext", read.frame);
            same("envelope.frame", read.frame);
            same("sealed.body", sealGcm(key, sealedNonce(place, header), sealedAad(place, header), read.frame));
            same("sealed.mac_input", sealedMacInput(place, header, prefixed(read.body)));
            same("sealed.mac", hmac(agent.mac, sealedMacInput(place, header, prefixed(read.body))));
            same("sealed.value", join(header, read.mac, prefixed(read.body)));
            same("sealed.origin_digest", hash(raw("sealed.value")));
            same("sealed.decision_id", slice(hash(raw("sealed.value")), 0, 10));
            out.println("sealed: " + payload(readEnvelope(unframe(read.frame))));
        }

        private static String payload(Envelope envelope) {
            return new String(envelope.payload, StandardCharsets.UTF_8);
        }

        private Certificate honestCertificate() {
            return readCertificate(raw("certificate.value"), raw("inputs.anchor"), raw("inputs.deployment"));
        }

        /** Section 13.2. */
        void certificate() {
            same("inputs.enforcer_key", honestCertificate().publicKey);
            same("certificate.use", "enforcer-certificate");
            byte[] message = certificateMessage(raw("certificate.value"));
            same("certificate.message", message);
            same("certificate.signature", sign(raw("inputs.anchor_seed"), message));
            same("certificate.value", join(slice(message, label("enforcer-certificate").length, message.length),
                    raw("certificate.signature")));
        }

        /** Section 5. */
        void derived(String path) {
            Place place = output();
            byte[] value = raw(path + ".value");
            Bundle bundle = frameDerived(value);
            verifyDerived(bundle, honestCertificate(), place);
            same(path + ".topic", place.topic);
            same(path + ".partition", place.partition);
            same("inputs.epoch", bundle.head.epoch);
            same(path + ".head", bundle.head.bytes);
            same(path + ".key_table", bundle.keyTable);
            same(path + ".key_table_digest", hash(bundle.keyTable));
            same(path + ".root", treeRoot(bundle.leaves()));
            same(path + ".message", bundle.message(place));
            same(path + ".signature", sign(raw("inputs.enforcer_seed"), bundle.message(place)));
            if (size(path + ".sets") != bundle.table.sets.size() || size(path + ".records") != bundle.entries.size()) {
                differ(path, "not as many reader sets or records as the value holds");
                return;
            }
            for (int index = 0; index < bundle.table.sets.size(); index++) {
                readerSet(path + ".sets." + index, bundle, bundle.table.sets.get(index), place);
            }
            for (int index = 0; index < bundle.table.index.size(); index++) {
                String at = path + ".index." + index;
                byte[] kek = readers().stream().map(each -> each.kek)
                        .filter(each -> Arrays.equals(each, raw(at + ".kek"))).findFirst().orElseThrow();
                byte[] key = expand(kek, join(label("key/index"), part(text(at + ".field"))), 32);
                byte[] token = slice(bundle.table.index.get(index), 2, 18);
                same(at + ".key", key);
                same(at + ".token", token);
                same(at + ".token", slice(hmac(key, ascii(text(at + ".text"))), 0, 16));
            }
            for (int index = 0; index < bundle.entries.size(); index++) {
                released(path, index, bundle, place);
            }
        }

        private void readerSet(String path, Bundle bundle, ReaderSet set, Place place) {
            List<ReadingKey> readers = readers();
            byte[] dek = unwrap(bundle, set, readers, place);
            same(path + ".dek", dek);
            same(path + ".commitment_preimage", join(label("dek"), dek));
            same(path + ".commitment", hash(label("dek"), dek));
            same(path + ".wrap_aad", bundle.wrapAad(place, set));
            for (int index = 0; index < set.entries.size(); index++) {
                String at = path + ".entries." + index;
                Wrapped entry = set.entries.get(index);
                ReadingKey key = readers.stream()
                        .filter(each -> Arrays.equals(each.id, entry.readerKeyId)).findFirst().orElseThrow();
                byte[] nonce = slice(entry.wrapped, 0, 12);
                same(at + ".reader_key_id", key.id);
                same(at + ".nonce", nonce);
                same(at + ".wrapped", join(nonce, sealGcm(key.kek, nonce, bundle.wrapAad(place, set), dek)));
            }
        }

        private void released(String path, int index, Bundle bundle, Place place) {
            String at = path + ".records." + index;
            Entry entry = bundle.entries.get(index);
            byte[] frame = openEntry(bundle, entry, readers(), place);
            Released released = readReleased(unframe(frame));
            same(at + ".record_id", entry.recordId);
            same(at + ".reader_set", entry.readerSet);
            same(at + ".counter", entry.counter);
            same(at + ".plaintext", frame);
            same(at + ".body", entry.body);
            same(at + ".leaf", bundle.leaves().get(index));
            same(at + ".entry", join(entry.fixedFields(), prefixed(entry.body)));
            if (bundle.head.tier == RETRIEVAL) {
                byte[] nonce = join(u32(0), u64(entry.counter));
                byte[] dek = unwrap(bundle, bundle.table.sets.get(entry.readerSet), readers(), place);
                same(at + ".nonce", nonce);
                same(at + ".aad", bundle.aad(place, entry));
                same(at + ".body", sealGcm(dek, nonce, bundle.aad(place, entry), frame));
            }
            same(at + ".released.value", unframe(frame));
            same(at + ".released.decision_id", released.decisionId);
            same(at + ".released.ticket", released.ticket);
            same(at + ".released.envelope", released.content);
            same(at + ".released.payload", released.envelope.payload);
            out.println(path + " " + index + " for " + readersOf(bundle, entry, place) + ": "
                    + payload(released.envelope));
        }

        /** Who can open an entry, each key tried alone. */
        private String readersOf(Bundle bundle, Entry entry, Place place) {
            if (bundle.head.tier == PLAINTEXT) {
                return "everybody";
            }
            List<String> names = readers().stream()
                    .filter(key -> openEntry(bundle, entry, List.of(key), place) != null)
                    .map(ReadingKey::name)
                    .toList();
            return String.join(", ", names);
        }

        /** Every malformed variant of a value that this program reads is refused with its code. */
        void malformed() {
            Map<String, Integer> refused = new TreeMap<>();
            for (int index = 0; index < size("malformed"); index++) {
                String path = "malformed." + index;
                String of = text(path + ".of");
                Runnable read = reader(of, path);
                if (read == null) {
                    continue;
                }
                String found = "accepted";
                try {
                    read.run();
                } catch (Refused refusal) {
                    found = refusal.code;
                }
                compared++;
                if (found.equals(text(path + ".code"))) {
                    refused.merge(of, 1, Integer::sum);
                } else {
                    differ(path, of + " \"" + text(path + ".name") + "\": expected " + told(path + ".code") + ", found "
                            + found);
                }
            }
            refused.forEach((of, count) -> out.println("malformed " + of + ": " + count + " refused as listed"));
            if (!refused.keySet().containsAll(List.of("sealed", "derived"))) {
                differ("malformed", "no variant of sealed or of derived");
            }
        }

        private Runnable reader(String of, String path) {
            byte[] value = raw(path + ".value");
            Place changed = changed(of.equals("sealed") ? input() : output(), path);
            return switch (of) {
                case "sealed" -> () -> readEnvelope(unframe(readSealed(value, agent(), changed).frame));
                case "derived" -> () -> readDerived(value, honestCertificate(), readers(), changed);
                case "envelope" -> () -> readEnvelope(unframe(value));
                case "profile" -> () -> readProfile(value);
                case "certificate" -> () -> readCertificate(value, raw("inputs.anchor"), changed.deployment);
                default -> null;
            };
        }

        /** {@code with}: what of the inputs is read differently. */
        private Place changed(Place place, String path) {
            Map<?, ?> variant = (Map<?, ?>) told(path);
            Map<String, Object> with = new LinkedHashMap<>();
            if (variant.containsKey("with")) {
                ((Map<?, ?>) variant.get("with")).forEach((name, value) -> with.put((String) name, value));
            }
            Object deployment = with.remove("deployment");
            Object topic = with.remove("topic");
            Object partition = with.remove("partition");
            Object zone = with.remove("zone");
            Object domain = with.remove("domain");
            if (!with.isEmpty()) {
                differ(path, "unknown inputs " + with.keySet());
            }
            return new Place(
                    deployment == null ? place.deployment : HEX.parseHex((String) deployment),
                    topic == null ? place.topic : (String) topic,
                    partition == null ? place.partition : Math.toIntExact((Long) partition),
                    zone == null ? place.zone : (String) zone,
                    domain == null ? place.domain : (String) domain);
        }
    }

    // ---- The file -----------------------------------------------------------------------------------------------

    /** As much JSON as the file needs, strictly: no fractions, no repeated names, nothing after the document. */
    static final class Json {
        private static final int MAX_DEPTH = 16;
        private final String text;
        private int at;

        Json(String text) {
            this.text = text;
        }

        Map<String, Object> document() {
            space();
            if (peek() != '{') {
                throw wrong("an object");
            }
            Map<String, Object> document = object(0);
            space();
            if (at != text.length()) {
                throw wrong("the end");
            }
            return document;
        }

        private IllegalArgumentException wrong(String expected) {
            return new IllegalArgumentException("JSON at character " + at + ": expected " + expected);
        }

        private char peek() {
            return at < text.length() ? text.charAt(at) : '\0';
        }

        private void space() {
            while (at < text.length() && " \n\r\t".indexOf(peek()) >= 0) {
                at++;
            }
        }

        private boolean skip(String token) {
            if (!text.startsWith(token, at)) {
                return false;
            }
            at += token.length();
            return true;
        }

        private void expect(String token) {
            space();
            if (!skip(token)) {
                throw wrong(token);
            }
            space();
        }

        private Object value(int depth) {
            if (depth > MAX_DEPTH) {
                throw wrong("at most " + MAX_DEPTH + " levels");
            }
            switch (peek()) {
                case '{':
                    return object(depth);
                case '[':
                    return array(depth);
                case '"':
                    return string();
                default:
                    break;
            }
            if (skip("null")) {
                return null;
            }
            if (skip("true")) {
                return Boolean.TRUE;
            }
            return skip("false") ? Boolean.FALSE : (Object) integer();
        }

        private Map<String, Object> object(int depth) {
            Map<String, Object> members = new LinkedHashMap<>();
            expect("{");
            if (skip("}")) {
                return members;
            }
            do {
                space();
                String name = string();
                expect(":");
                if (members.containsKey(name)) {
                    throw wrong("each name once, found " + name + " again");
                }
                members.put(name, value(depth + 1));
                space();
            } while (skip(","));
            if (!skip("}")) {
                throw wrong("}");
            }
            return members;
        }

        private List<Object> array(int depth) {
            List<Object> items = new ArrayList<>();
            expect("[");
            if (skip("]")) {
                return items;
            }
            do {
                space();
                items.add(value(depth + 1));
                space();
            } while (skip(","));
            if (!skip("]")) {
                throw wrong("]");
            }
            return items;
        }

        private Long integer() {
            int start = at;
            skip("-");
            while (peek() >= '0' && peek() <= '9') {
                at++;
            }
            String digits = text.substring(start, at);
            if (!digits.matches("-?(0|[1-9][0-9]{0,17})")) {
                throw wrong("a value");
            }
            return Long.valueOf(digits);
        }

        private String string() {
            if (!skip("\"")) {
                throw wrong("a string");
            }
            StringBuilder out = new StringBuilder();
            while (peek() != '"') {
                char next = peek();
                if (next < ' ') {
                    throw wrong("a character");
                }
                at++;
                out.append(next == '\\' ? escaped() : next);
            }
            at++;
            return out.toString();
        }

        private char escaped() {
            int index = "\"\\/bfnrt".indexOf(peek());
            if (index >= 0) {
                at++;
                return "\"\\/\b\f\n\r\t".charAt(index);
            }
            if (!skip("u") || at + 4 > text.length()) {
                throw wrong("an escape");
            }
            at += 4;
            return (char) HexFormat.fromHexDigits(text, at - 4, at);
        }
    }
}
