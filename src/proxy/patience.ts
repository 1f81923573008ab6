// How long each step of an opening may take: between clients that give up after 5 s (Android), 8 s (Desktop) or 12 s
// (iOS), and networks on which a round trip takes a second.

/**
 * When no way has opened by then, there is none, in milliseconds: Android clients give up after about 5 s and
 * come back, and what failed meanwhile is then last.
 */
export const OPEN_LIMIT_MS = 4_500;
/** When the last open way closes late without an answer, the others get this long, in milliseconds. */
export const SECOND_CHANCE_MS = 1_500;
/**
 * How long an open way may leave the client's first packet without an answer before others are tried, in
 * milliseconds. An answer takes one round trip and some work, opening took three: so 1.5 times the opening, in
 * bounds. On a slow network the bound is far away: there, more connections would only make it slower.
 */
export const DOUBT_MS = { factor: 1.5, least: 800, most: 4_000 } as const;
/** Once there is doubt, each further way gets this part of that time. */
export const DOUBT_GAP_FACTOR = 0.3;
/** So many ways at once may be open without an answer: a dead network, or a client that wants none, is not worth more. */
export const MOST_TRIALS = 8;
/** An upload is under way: the answer only comes after it. Looked at again after this time, in milliseconds. */
export const UPLOAD_LOOK_MS = 500;
/** An upload that made no progress from look to look so often is none. */
export const STUCK_LOOKS = 4;
/** Who had so many times as long as the way that answered, and at least so long, is silent. In milliseconds. */
export const FAIR_FACTOR = 2;
export const FAIR_LEAST_MS = 200;
/**
 * Who has not answered a question for so long is silent, in milliseconds: before Android gives up, after 5 s, so
 * that its next connection begins with another way.
 */
export const SILENT_MS = 4_200;
/** A client that has left after this time has waited long enough to blame the way, in milliseconds. */
export const SILENT_FOR_ONE_WHO_LEFT_MS = 3_000;
/** A connection that was open for so long before it closed, unused, has not failed: it was idle. */
export const IDLE_CLOSE_MS = 5_000;
