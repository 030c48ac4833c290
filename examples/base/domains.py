"""The everyday domains the base model reads messages about: what people say, and which JSON answers it.

Only data and its two small types live here; the random choices are made in `corpus.py`. Customer support must not enter:
the support desk is what a fine-tune teaches, so no domain here may use its keys, its intents or its sentences.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Domain:
    """One kind of message: the cues that decide a label, the facts that fill the slots, the sentence that answers."""

    things: str  # the words that may stand for {thing}, separated by commas
    thing_key: str
    label_key: str
    cues: dict[str, str]  # label -> sentences with {thing}, separated by |
    notes: dict[str, str]  # label -> the closing sentence, with {thing} and perhaps {code}
    facts: dict[str, str]  # slot kind -> "key: sentences with {}", separated by |
    note_key: str = "note"
    level_key: str = ""
    levels: dict[str, str] = field(default_factory=dict)  # level -> sentences; the first level needs none


DOMAINS: tuple[Domain, ...] = (
    Domain(
        "novel,atlas,cookbook,diary,map,comic,poem book,dictionary,guide,film,record,magazine", "title", "action",
        {"renew": "could I keep the {thing} a little longer|I need more time with the {thing}|please extend my {thing}|the {thing} is not finished yet",
         "reserve": "please hold the {thing} for me|I want to reserve the {thing}|keep a copy of the {thing} at the desk|put my name on the {thing}",
         "give_back": "I am bringing the {thing} back|the {thing} is in the return box|I have read the {thing} and will hand it in"},
        {"renew": "The {thing} is extended.", "reserve": "The {thing} is kept for you.", "give_back": "The {thing} is back on the shelf."},
        {"code": "card: my card is {}|card number {}|library card {}", "person": "member: this is {}|{} here|my name is {}"},
    ),
    Domain(
        "soup,bread,curry,salad,pancake,stew,cake,pie,omelette,noodle dish,rice bowl,pudding", "dish", "meal",
        {"breakfast": "I eat {thing} before work|we start the morning with {thing}|{thing} goes well with early coffee",
         "lunch": "{thing} is what we cook at noon|at midday I make {thing}|a {thing} for the lunch break",
         "dinner": "tonight we cook {thing}|{thing} for the evening table|after work I prepare {thing}"},
        {"breakfast": "Start the day with {thing}.", "lunch": "Cook {thing} at noon.", "dinner": "Serve {thing} tonight."},
        {"number": "minutes: it takes {} minutes|ready in {} minutes", "count": "people: it feeds {} people|enough for {}"},
        "tip", "spice", {"plain": "", "warm": "add some pepper|a little spice is fine", "hot": "make it very hot|lots of chili please"},
    ),
    Domain(
        "harbour,valley,coast,airport,village,island,forest,city,lake,mountain", "area", "weather",
        {"rain": "it has been pouring over the {thing}|heavy drops fall on the {thing}|the {thing} is wet all day",
         "snow": "white flakes cover the {thing}|the {thing} is under fresh snow|frost and flakes at the {thing}",
         "sun": "clear skies above the {thing}|the {thing} is bright and dry|not a cloud over the {thing}",
         "wind": "strong gusts cross the {thing}|the {thing} is blown about|a storm shakes the {thing}"},
        {"rain": "Take an umbrella to the {thing}.", "snow": "Wear boots at the {thing}.", "sun": "Enjoy the {thing}.", "wind": "Stay away from the {thing}."},
        {"number": "degrees: it is {} degrees|about {} degrees now", "day": "day: seen on {}|report for {}", "code": "station: station {}|sent by {}"},
        "advice", "danger", {"none": "", "some": "be a bit careful|roads may be slow", "great": "stay inside|danger for everyone|nobody should go out"},
    ),
    Domain(
        "flight,train,ferry,bus,hotel room,cabin,tour,car,tent site,night train", "booked", "request",
        {"book": "I would like to book a {thing}|please find me a {thing}|we need a {thing}",
         "change": "can we move the {thing} to another date|the date of my {thing} has to change|shift the {thing} please",
         "drop": "we do not need the {thing} any more|drop the {thing} from the trip|our plans fell through so no {thing}"},
        {"book": "Your {thing} is booked.", "change": "Your {thing} has a new date, see {code}.", "drop": "Your {thing} is dropped, see {code}."},
        {"code": "booking: booking {}|the booking code is {}|see {}", "place": "to: we go to {}|travelling to {}", "day": "on: on {}|leaving {}"},
        "answer",
    ),
    Domain(
        "football,hockey,chess,tennis,rowing,handball,swimming,cycling,boxing,rugby", "sport", "outcome",
        {"win": "our {thing} side came out on top|we were the better {thing} team|a great {thing} victory",
         "loss": "we lost at {thing}|the others were stronger at {thing}|a sad {thing} defeat",
         "draw": "nobody won the {thing} match|the {thing} game ended level|points were shared at {thing}"},
        {"win": "A {thing} win to celebrate.", "loss": "Train more {thing}.", "draw": "The {thing} match ended even."},
        {"place": "ground: played in {}|the match was at {}", "count": "points: we got {} points|{} points for us", "person": "best: {} played best|best of all was {}"},
        "headline",
    ),
    Domain(
        "lamp,chair,kettle,desk,router,speaker,printer,camera,toaster,phone,heater,blender,keyboard,monitor,vacuum,watch,headset,tablet",
        "item", "move",
        {"in": "we received the {thing} at the dock|new stock of {thing} came|put the {thing} on the shelf",
         "out": "the {thing} left the store|we shipped the {thing}|take the {thing} off the list",
         "count": "please count every {thing}|how many {thing} units are left|check the {thing} stock"},
        {"in": "Stored the {thing} under {code}.", "out": "Removed the {thing} from {code}.", "count": "Counting the {thing}."},
        {"code": "bin: bin {}|label {}|it says {} on the box", "count": "units: {} units|{} pieces"},
        "log", "care", {"normal": "", "gentle": "handle with care|it is a bit fragile", "strict": "two people must lift it|very fragile glass"},
    ),
    Domain(
        "maths,history,music,physics,art,biology,drama,latin,geography,chemistry", "subject", "slot",
        {"morning": "{thing} is the first lesson|we have {thing} at nine|early {thing} class",
         "afternoon": "{thing} comes after lunch|we sit in {thing} at two|late {thing} lesson",
         "free": "{thing} falls out|no {thing} class|the {thing} lesson is off"},
        {"morning": "Bring your {thing} book early.", "afternoon": "See you in {thing} after lunch.", "free": "No {thing}, enjoy the break."},
        {"person": "teacher: with {}|{} teaches it", "room": "room: in room {}|room {}", "day": "day: every {}|on {}"},
        "memo",
    ),
    Domain(
        "knee,back,tooth,ear,eye,shoulder,throat,foot,wrist,neck", "part", "visit",
        {"check": "just a routine look at my {thing}|time for the yearly {thing} check|please have a look at the {thing}",
         "pain": "my {thing} hurts|I feel a sharp pain in the {thing}|the {thing} is sore and red",
         "result": "are the {thing} pictures back|I wait for the {thing} report|what did the {thing} test say"},
        {"check": "We will look at your {thing}.", "pain": "Rest your {thing} and come in.", "result": "The {thing} report is {code}."},
        {"person": "patient: I am {}|for {}", "day": "day: {} suits me|free on {}", "code": "file: my file is {}|file {}"},
        "plan", "speed", {"any": "", "soon": "this week would be nice|rather soon", "now": "I can not wait|it must be today|please hurry"},
    ),
    Domain(
        "rose,tomato,apple tree,fern,bean,onion,tulip,hedge,lawn,cactus", "plant", "job",
        {"water": "the {thing} looks dry|give the {thing} a drink|leaves of the {thing} hang down",
         "cut": "the {thing} grew too tall|trim the {thing}|shorten the {thing}",
         "plant": "dig a hole for the {thing}|the young {thing} goes in the soil|we put in a new {thing}"},
        {"water": "Water the {thing}.", "cut": "Cut the {thing} back.", "plant": "Plant the {thing}."},
        {"day": "when: best on {}|do it {}", "count": "plants: there are {} of them|{} in a row", "code": "bed: bed {}|the sign says {}"},
        "todo",
    ),
    Domain(
        "song,waltz,march,hymn,opera,ballad,sonata,jazz piece", "piece", "mood",
        {"calm": "the {thing} is soft and slow|a quiet {thing} for the night|I fall asleep to the {thing}",
         "happy": "everyone dances to the {thing}|the {thing} makes me smile|a merry {thing}",
         "sad": "the {thing} brings tears|I cry when the {thing} starts|a gloomy {thing}"},
        {"calm": "Play the {thing} softly.", "happy": "Turn the {thing} up.", "sad": "The {thing} is a sad one."},
        {"person": "by: written by {}|{} wrote it", "number": "seconds: it lasts {} seconds", "code": "track: track {}|listed as {}"},
        "hint",
    ),
    Domain(
        "dog,cat,horse,parrot,rabbit,turtle,goat,hen,pony,hamster", "animal", "need",
        {"food": "the {thing} is hungry|nothing left in the bowl of the {thing}|feed the {thing}",
         "walk": "the {thing} wants to go outside|take the {thing} round the park|the {thing} waits at the door",
         "vet": "the {thing} limps|the {thing} looks ill|something is wrong with the {thing}"},
        {"food": "Feed the {thing}.", "walk": "Go out with the {thing}.", "vet": "Take the {thing} to the vet."},
        {"person": "owner: it belongs to {}|the owner is {}", "code": "tag: tag {}|chip {}", "count": "age: {} years old"},
        "reply", "mood", {"quiet": "", "lively": "it jumps a lot|very playful", "wild": "nobody can hold it|it bites everyone"},
    ),
    Domain(
        "bridge,tunnel,road,crossing,square,ring road,path,gate", "site", "state",
        {"open": "cars pass the {thing} again|the {thing} is free|traffic flows at the {thing}",
         "closed": "the {thing} is shut|nobody gets through the {thing}|barriers stand at the {thing}",
         "works": "they dig at the {thing}|workers repair the {thing}|cranes stand by the {thing}"},
        {"open": "You can use the {thing}.", "closed": "Avoid the {thing}.", "works": "Expect delays at the {thing}."},
        {"place": "town: near {}|in {}", "time": "since: since {}|from {} on", "code": "sector: sector {}|map square {}"},
        "sign",
    ),
    Domain(
        "loan,account,bill,card,rent,salary,tax form,savings plan", "paper", "step",
        {"pay": "I sent money for the {thing}|the {thing} has been settled|transfer done for the {thing}",
         "ask": "please explain the {thing}|I do not understand the {thing}|what does my {thing} mean",
         "close": "end the {thing}|I no longer want the {thing}|stop the {thing} for good"},
        {"pay": "Payment for the {thing} is noted.", "ask": "We explain the {thing} by letter.", "close": "The {thing} {code} is ended."},
        {"code": "ref: reference {}|it reads {}|ref {}", "number": "amount: {} euros|the sum is {}", "person": "client: signed {}|regards {}"},
        "letter",
    ),
    Domain(
        "play,concert,fair,market,lecture,workshop,dance,parade,quiz night,museum day", "event", "choice",
        {"join": "count me in for the {thing}|I will come to the {thing}|sign me up for the {thing}",
         "skip": "I can not make it to the {thing}|without me at the {thing}|sorry, no {thing} for me",
         "host": "I would run the {thing}|let me organise the {thing}|happy to lead the {thing}"},
        {"join": "See you at the {thing}.", "skip": "We miss you at the {thing}.", "host": "Thank you for leading the {thing}."},
        {"person": "guest: {} speaking|it is {}", "count": "seats: {} seats|we are {}", "code": "ticket: ticket {}|pass {}", "time": "at: at {}|doors at {}"},
        "message",
    ),
)
