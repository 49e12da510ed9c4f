// The Lua scripts of Pending: one per state change. All keys of a script share the subject's hash tag.
//
// A slot is one packed value, of which a challenge that nobody tried yet takes 36 bytes and its return path: what it
// has beside that (flags in the first byte, whose upper half is the version), attempts left, epoch, expiry, 16 random
// bytes, the return path; then what it has: the `by` of a held slot, when a code was mailed and its hash, operation ids
// of attempts (4 bytes each), payload. Budgets are packed lists, fields of one hash a subject ('' for all unknown
// browsers, a browser's own, 'k' and a browser for backup codes), so that clearing them is one command.

const PRELUDE = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[1])
local function text(n) return string.format('%.0f', n) end
local function readSlot(key)
  local raw = redis.call('GET', key)
  if not raw then return nil end
  local v, left, epoch, expires, random, path, at = struct.unpack('<Bbddc16Hc0', raw)
  if v < 32 or v > 47 then return nil end
  local s = { left = left, epoch = epoch, expires = expires, random = random, path = path, by = '', mailedAt = 0, mailed = '', ops = '', payload = '' }
  if bit.band(v, 1) > 0 then s.by, at = struct.unpack('<Bc0', raw, at) end
  if bit.band(v, 2) > 0 then s.mailedAt, s.mailed, at = struct.unpack('<dBc0', raw, at) end
  if bit.band(v, 4) > 0 then s.ops, at = struct.unpack('<Bc0', raw, at) end
  if bit.band(v, 8) > 0 then s.payload = struct.unpack('<Hc0', raw, at) end
  if s.expires <= now then return nil end
  return s
end
local function packSlot(s)
  local v, rest = 32, ''
  if s.by ~= '' then v, rest = v + 1, struct.pack('<Bc0', #s.by, s.by) end
  if s.mailed ~= '' then v, rest = v + 2, rest .. struct.pack('<dBc0', s.mailedAt, #s.mailed, s.mailed) end
  if s.ops ~= '' then v, rest = v + 4, rest .. struct.pack('<Bc0', #s.ops, s.ops) end
  if s.payload ~= '' then v, rest = v + 8, rest .. struct.pack('<Hc0', #s.payload, s.payload) end
  return struct.pack('<Bbddc16Hc0', v, s.left, s.epoch, s.expires, s.random, #s.path, s.path) .. rest
end
local function writeSlot(key, s) redis.call('SET', key, packSlot(s), 'KEEPTTL') end
local function ofBy(s, random, by) return s and s.random == random and (s.by == '' or s.by == by) end
-- Where an operation's id stands; ids lie one after another, so that only whole ones count.
local function placeOf(ops, id)
  for at = 1, #ops, #id do if string.sub(ops, at, at + #id - 1) == id then return at end end
end
local field = ARGV[2]
local function readPacked()
  local raw = redis.call('HGET', KEYS[2], field)
  return raw and cmsgpack.unpack(raw)
end
local function readBudget()
  local b = readPacked()
  if b then return b, true end
  return { 0, 0, 0, {} }, false
end
local function writeBudget(b)
  redis.call('HSET', KEYS[2], field, cmsgpack.pack(b))
  redis.call('PEXPIRE', KEYS[2], 172800000)
end
local function mailWait(b, s, resend, perHour, perDay)
  local wait, hour, recent = 0, {}, {}
  for _, at in ipairs(b[4]) do
    if now - at < 86400000 then recent[#recent + 1] = at end
    if now - at < 3600000 then hour[#hour + 1] = at end
  end
  b[4] = recent
  if #recent > 0 then wait = math.max(wait, recent[#recent] + resend - now) end
  if s and s.mailedAt > 0 then wait = math.max(wait, s.mailedAt + resend - now) end
  if #hour >= perHour then wait = math.max(wait, hour[#hour - perHour + 1] + 3600000 - now) end
  if #recent >= perDay then wait = math.max(wait, recent[#recent - perDay + 1] + 86400000 - now) end
  return wait
end
local function answer(status, s, wait, mail)
  if not s then return { status, text(now), text(wait or 0) } end
  return { status, text(now), text(wait or 0), text(mail or 0), text(s.left), text(s.epoch), text(s.expires), text(s.mailedAt), s.mailed, s.path, s.payload, s.random }
end
`

/** How many keys each takes, and what it does. */
export const SCRIPTS = {
  // KEYS slot, budget, held. ARGV offset, field, random, by, epoch, lifetime, attempts, path?, path, payload,
  // replace, inARow, held?, held, resend, perHour, perDay
  posternOpen: {
    keys: 3,
    lua:
      PRELUDE +
      `
local b, counted = readBudget()
local sql = tonumber(ARGV[12])
if (sql > b[1] or now - b[3] > 10000) and b[1] ~= sql then
  b[1] = sql
  if counted or sql > 0 then writeBudget(b) end
end
local s = readSlot(KEYS[1])
if s and ARGV[13] == '1' and s.random ~= ARGV[3] then s = nil end
-- A reply that was lost is asked for again: what this very call made is still new.
local again = s and s.random == ARGV[3]
local fresh = again or not (s and s.epoch == tonumber(ARGV[5]) and s.left > 0 and ARGV[11] == '0')
if fresh and not again then
  s = { left = tonumber(ARGV[7]), epoch = tonumber(ARGV[5]), expires = now + tonumber(ARGV[6]), mailedAt = 0, random = ARGV[3], by = ARGV[13] == '1' and ARGV[4] or '', mailed = '', path = ARGV[9], ops = '', payload = ARGV[10] }
  redis.call('SET', KEYS[1], packSlot(s), 'PX', ARGV[6])
  if ARGV[13] == '1' then redis.call('SET', KEYS[3], ARGV[14], 'PX', tonumber(ARGV[6]) + 60000) end
elseif ARGV[8] == '1' and s.path ~= ARGV[9] then
  s.path = ARGV[9]
  writeSlot(KEYS[1], s)
end
return answer(fresh and 'fresh' or 'live', s, math.max(0, b[2] - now), mailWait(b, s, tonumber(ARGV[15]), tonumber(ARGV[16]), tonumber(ARGV[17])))`
  },
  // KEYS slot, budget. ARGV offset, field, random ('' = whichever is live), by, resend, perHour, perDay
  posternRead: {
    keys: 2,
    lua:
      PRELUDE +
      `
local s = readSlot(KEYS[1])
if not s or (ARGV[3] ~= '' and not ofBy(s, ARGV[3], ARGV[4])) then return answer('gone') end
local b = readBudget()
return answer('live', s, math.max(0, b[2] - now), mailWait(b, s, tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])))`
  },
  // KEYS slot, budget. ARGV offset, field, random, by, operation, inARow, waitAfter, waitFirst, waitLongest
  posternTake: {
    keys: 2,
    lua:
      PRELUDE +
      `
local s = readSlot(KEYS[1])
if not ofBy(s, ARGV[3], ARGV[4]) then return answer('gone') end
local b, counted = readBudget()
if placeOf(s.ops, ARGV[5]) then return answer('taken', s, 0, b[1]) end
if not counted then b[1] = tonumber(ARGV[6]) end
if b[2] > now then return answer('waiting', nil, b[2] - now) end
if s.left <= 0 then return answer('spent') end
b[1] = b[1] + 1
b[3] = now
local after = tonumber(ARGV[7])
if b[1] >= after then b[2] = now + math.min(tonumber(ARGV[8]) * 2 ^ math.min(b[1] - after, 20), tonumber(ARGV[9])) end
s.left = s.left - 1
s.ops = s.ops .. ARGV[5]
writeBudget(b)
writeSlot(KEYS[1], s)
return answer('taken', s, 0, b[1])`
  },
  // KEYS slot, allowance. ARGV offset, field, random, by, operation, perHour
  posternTakeBackup: {
    keys: 2,
    lua:
      PRELUDE +
      `
local s = readSlot(KEYS[1])
if not ofBy(s, ARGV[3], ARGV[4]) then return answer('gone') end
if placeOf(s.ops, ARGV[5]) then return answer('taken', s, 0, 0) end
local wrong = {}
for _, one in ipairs(readPacked() or {}) do if now - one[1] < 3600000 then wrong[#wrong + 1] = one end end
if #wrong >= tonumber(ARGV[6]) then return answer('waiting', nil, wrong[1][1] + 3600000 - now) end
if s.left <= 0 then return answer('spent') end
wrong[#wrong + 1] = { now, ARGV[5] }
s.left = s.left - 1
s.ops = s.ops .. ARGV[5]
writeBudget(wrong)
writeSlot(KEYS[1], s)
return answer('taken', s, 0, 0)`
  },
  // KEYS slot, budget or allowance. ARGV offset, field, random, by, operation, outcome, budget, booked
  posternGiveBack: {
    keys: 2,
    lua:
      PRELUDE +
      `
local s = readSlot(KEYS[1])
local from = ofBy(s, ARGV[3], ARGV[4]) and placeOf(s.ops, ARGV[5])
if from and ARGV[6] == 'accepted' then
  redis.call('DEL', KEYS[1])
elseif from then
  s.ops = string.sub(s.ops, 1, from - 1) .. string.sub(s.ops, from + #ARGV[5])
  s.left = s.left + 1
  writeSlot(KEYS[1], s)
end
if ARGV[7] == 'backup_code' then
  local stays = {}
  for _, one in ipairs(readPacked() or {}) do if one[2] ~= ARGV[5] then stays[#stays + 1] = one end end
  writeBudget(stays)
  return answer('done')
end
local b, counted = readBudget()
-- Given back once: a repeat, or one whose slot has ended, would undo what somebody else booked since.
if counted and from then
  if ARGV[6] == 'accepted' then b[1] = 0 else b[1] = math.max(0, b[1] - 1) end
  if ARGV[6] == 'accepted' or b[1] < tonumber(ARGV[8]) then b[2] = 0 end
  writeBudget(b)
end
return answer('done')`
  },
  // KEYS slot, budget. ARGV offset, field, random, by, hash, resend, perHour, perDay
  posternSend: {
    keys: 2,
    lua:
      PRELUDE +
      `
local s = readSlot(KEYS[1])
if not ofBy(s, ARGV[3], ARGV[4]) or s.left <= 0 then return answer('gone') end
local b = readBudget()
if s.mailed == ARGV[5] then return answer('sent', s, 0, 0) end
local wait = math.max(b[2] - now, mailWait(b, s, tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])))
if wait > 0 then return answer('waiting', nil, wait) end
b[4][#b[4] + 1] = now
s.mailed = ARGV[5]
s.mailedAt = now
writeBudget(b)
writeSlot(KEYS[1], s)
return answer('sent', s, 0, 0)`
  },
  // KEYS slot. ARGV offset, '', random, by
  posternEnd: {
    keys: 1,
    lua:
      PRELUDE +
      `
local s = readSlot(KEYS[1])
if ofBy(s, ARGV[3], ARGV[4]) then redis.call('DEL', KEYS[1]) end
return answer('done')`
  },
  // KEYS any key, to name a node. ARGV offset
  posternNow: { keys: 1, lua: PRELUDE + "return answer('done')" }
} as const
