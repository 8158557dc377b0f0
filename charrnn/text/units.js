// Text as symbol codes, and back, as units.py has them.

const FIRST_SPECIAL = 0x110000, FIRST_VOWEL = FIRST_SPECIAL + 19, FIRST_TAIL = FIRST_VOWEL + 21;
const END_OF_DOCUMENT = FIRST_TAIL + 27, UNKNOWN = END_OF_DOCUMENT + 1;
const FIRST_SYLLABLE = 0xac00, SYLLABLES = 19 * 21 * 28;
// how jamo that form no syllable are shown: leads, vowels, tails
const JAMO = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ" +
  "ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ";

// The codes of each character (or byte) of a text, as lists: a syllable is several jamo.
function toCodes(text, unit) {
  if (unit === "byte") return Array.from(new TextEncoder().encode(text), byte => [byte]);
  return Array.from(text, character => {
    const code = character.codePointAt(0), syllable = code - FIRST_SYLLABLE;
    if (unit === "char" || syllable < 0 || syllable >= SYLLABLES) return [code];
    const tail = syllable % 28, block = Math.floor(syllable / 28);
    const jamo = [FIRST_SPECIAL + Math.floor(block / 21), FIRST_VOWEL + block % 21];
    return tail ? [...jamo, FIRST_TAIL + tail - 1] : jamo;
  });
}

// Composes characters symbol by symbol: the bytes of a character and the jamo of a syllable wait
// until it is complete. Returns [text, bits] for each that is; the bits of its symbols add up.
class Composer {
  constructor(unit) {
    this.decoder = unit === "byte" ? new TextDecoder("utf-8", {ignoreBOM: true}) : null;
    this.jamo = [];
    this.bits = 0;
  }

  feed(code, bits) {
    if (this.decoder && code < FIRST_SPECIAL) {
      this.bits += bits;
      const text = this.decoder.decode(Uint8Array.of(code), {stream: true});
      return text ? this.complete(text) : [];
    }
    const place = [FIRST_VOWEL, FIRST_TAIL, END_OF_DOCUMENT].findIndex(end => code < end);
    const isJamo = code >= FIRST_SPECIAL && place >= 0;
    const before = isJamo && place === this.jamo.length ? [] : this.flush();
    this.bits += bits;
    if (!isJamo || place !== this.jamo.length) return [...before, ...this.complete(textOf(code))];
    this.jamo.push(code);
    return place === 2 ? this.flush() : before;
  }

  // Return the text of what waits.
  flush() {
    if (this.decoder) {
      const text = this.decoder.decode();
      return text ? this.complete(text) : [];
    }
    const [lead, vowel, tail = FIRST_TAIL - 1] = this.jamo;
    if (!lead) return [];
    if (!vowel) return this.complete(textOf(lead));
    const block = (lead - FIRST_SPECIAL) * 21 + vowel - FIRST_VOWEL;
    return this.complete(String.fromCharCode(FIRST_SYLLABLE + block * 28 + tail - FIRST_TAIL + 1));
  }

  complete(text) {
    const bits = this.bits;
    this.bits = 0;
    this.jamo = [];
    return [[text, bits]];
  }
}

function textOf(code) {
  if (code < FIRST_SPECIAL) return String.fromCodePoint(code);
  return {[END_OF_DOCUMENT]: "", [UNKNOWN]: "\ufffd"}[code] ?? JAMO[code - FIRST_SPECIAL];
}
