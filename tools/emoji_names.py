"""Which of the package's emoji ship, by folder, and what their captions call them.

A word is the emoji's name in the package; where a caption calls it something else, that stands behind `=`, with "+"
for spaces. Skin tones, texts, flags and what looks like another at 32 x 32 are left out.
"""

CATEGORIES = {
    "animals": """
        ant badger bat bear beetle bird bison boar bug=caterpillar butterfly camel cat chicken chipmunk cow
        cow-face=cow's+face crab cricket crocodile deer dodo dog dog-face=dog's+face dolphin dragon duck eagle
        elephant fish flamingo fly fox frog giraffe goat goose gorilla hamster hatching-chick hedgehog
        honeybee horse horse-face=horse's+head jellyfish kangaroo koala lady-beetle=ladybird leopard lion
        llama lobster monkey mouse octopus owl panda parrot peacock penguin pig polar-bear rabbit raccoon
        rhinoceros rooster sauropod=long-necked+dinosaur scorpion shark sloth snail snake spider squid swan
        t-rex=t-rex tiger tiger-face=tiger's+face tropical-fish turkey turtle unicorn whale wolf zebra""",
    "buildings": """
        bank castle church circus-tent department-store derelict-house=ruin factory fountain hindu-temple=temple
        hospital hotel house hut japanese-castle=pagoda mosque office-building school
        shinto-shrine=shrine+gate stadium tent tokyo-tower=tower""",
    "clothes": """
        ballet-shoes bikini billed-cap=cap briefs clutch-bag coat crown dress
        flat-shoe glasses gloves graduation-cap high-heeled-shoe jeans kimono lab-coat
        military-helmet=green+helmet necktie=shirt+and+tie one-piece-swimsuit=swimsuit purse running-shoe safety-vest
        sari scarf shorts socks sunglasses thong-sandal top-hat
        womans-clothes=blouse womans-boot=boot womans-hat=sun+hat""",
    "faces": """
        alien angry-face-with-horns=devil clown-face=clown cold-face=freezing+face cowboy-hat-face=cowboy
        crying-face exploding-head face-screaming-in-fear=screaming+face face-with-medical-mask=face+with+a+mask
        face-with-monocle=face+with+a+monocle face-with-tears-of-joy=face+with+tears+of+joy ghost
        goblin grinning-cat=smiling+cat grinning-face hot-face=hot+face loudly-crying-face
        money-mouth-face=greedy+face nauseated-face=sick+face nerd-face=face+with+glasses
        ogre partying-face pile-of-poo pouting-face=red+angry+face robot skull sleeping-face
        slightly-smiling-face=smiling+face smiling-face-with-halo=angel+face
        smiling-face-with-heart-eyes=face+with+heart+eyes smiling-face-with-sunglasses=face+with+sunglasses
        star-struck=face+with+star+eyes thinking-face upside-down-face=face+upside+down winking-face-with-tongue=winking+face""",
    "food": """
        avocado bacon bagel baguette-bread=baguette banana beer-mug=mug+of+beer bell-pepper=green+pepper
        birthday-cake blueberries bread=loaf+of+bread broccoli bubble-tea=cup+of+bubble+tea
        burrito butter candy=piece+of+candy carrot cheese-wedge=piece+of+cheese cherries
        chocolate-bar=bar+of+chocolate cocktail-glass=cocktail coconut cooked-rice=bowl+of+rice
        cookie cooking=fried+egg croissant cucumber cupcake custard=pudding dango=skewer+of+dango doughnut
        dumpling ear-of-corn egg eggplant french-fries fried-shrimp garlic
        glass-of-milk grapes green-apple green-salad hamburger honey-pot=pot+of+honey
        hot-beverage=cup+of+coffee hot-dog hot-pepper=red+pepper ice-cream=bowl+of+ice+cream kiwi-fruit=kiwi
        lemon lime lollipop melon mushroom=red+mushroom olive onion pancakes pea-pod peach pear
        peanuts pie pineapple pizza=slice+of+pizza popcorn potato poultry-leg=chicken+leg pretzel
        red-apple rice-ball sandwich shortcake=piece+of+cake shrimp soft-ice-cream=ice+cream+cone
        spaghetti=plate+of+spaghetti steaming-bowl=bowl+of+noodles strawberry sushi taco tangerine=orange
        teapot tomato tropical-drink=glass+of+punch waffle watermelon=slice+of+watermelon wine-glass=glass+of+wine""",
    "music": """
        accordion banjo bell drum flute guitar headphone=headphones long-drum=djembe maracas
        microphone musical-keyboard=piano+keyboard musical-note postal-horn radio saxophone trumpet
        violin""",
    "objects": """
        alarm-clock anchor axe backpack basket bathtub battery bed bomb books bow-and-arrow briefcase broom
        bucket camera candle chair closed-book=red+book coffin compass couch-and-lamp=sofa crystal-ball
        dagger desktop-computer=computer door envelope file-folder=folder fire-extinguisher floppy-disk
        folding-hand-fan=fan gear gem-stone=diamond globe-showing-americas=globe hammer hourglass-done=hourglass
        key ladder laptop light-bulb lipstick locked=padlock luggage=suitcase magnet
        magnifying-glass-tilted-left=magnifying+glass megaphone memo=sheet+and+pencil microscope mirror
        mobile-phone=phone money-bag=bag+of+money open-book package=parcel paintbrush pencil pill
        printer pushpin ring scissors screwdriver shield shopping-cart soap=piece+of+soap syringe
        telephone telescope television test-tube toilet toolbox toothbrush umbrella watch wrench""",
    "plants": """
        blossom=white+flower bouquet cactus cherry-blossom christmas-tree deciduous-tree=tree
        fallen-leaf four-leaf-clover herb=twig hibiscus hyacinth lotus=lotus+flower maple-leaf palm-tree
        potted-plant rose rosette=orange+flower seedling sheaf-of-rice=rice+plant sunflower tulip""",
    "sky": """
        cloud comet crescent-moon cyclone=spiral droplet=drop+of+water fire full-moon high-voltage=flash
        mountain rainbow ringed-planet=planet+with+a+ring shooting-star snowflake snowman star sun
        sun-behind-cloud=sun+behind+a+cloud tornado volcano water-wave""",
    "sports": """
        1st-place-medal=gold+medal american-football artist-palette=palette badminton=badminton+racket
        balloon basketball boxing-glove bullseye=target chess-pawn=pawn curling-stone diving-mask
        flying-disc game-die=die ice-skate joystick kite magic-wand nesting-dolls=doll party-popper
        ping-pong=table+tennis+bat piata=paper+donkey puzzle-piece roller-skate skateboard
        skis=ski+boot sled soccer-ball softball teddy-bear tennis=tennis+racket trophy volleyball
        wrapped-gift yarn=ball+of+wool yo-yo=yo-yo""",
    "vehicles": """
        airplane ambulance articulated-lorry=truck auto-rickshaw=rickshaw automobile=red+car bicycle bullet-train
        bus canoe delivery-truck=van ferry fire-engine flying-saucer helicopter kick-scooter=scooter
        locomotive=steam+engine metro=subway+train minibus monorail motor-boat=motorboat motor-scooter=moped motorcycle parachute
        passenger-ship pickup-truck police-car racing-car railway-car=green+tram rocket
        sailboat satellite ship speedboat sport-utility-vehicle=blue+car taxi tractor tram trolleybus""",
}  # fmt: skip

# what no training picture shows: the held-out pictures, a few of each kind
HELD_OUT = """
    beaver blackbird orangutan otter poodle seal spouting-whale
    chestnut fortune-cookie mango moon-cake sake=bottle+of+sake pot-of-food oyster
    hiking-boot goggles shopping-bags running-shirt
    astonished-face disguised-face drooling-face
    trackball video-camera water-pistol clipboard credit-card flashlight paperclip telephone-receiver
    bowling=bowling+ball crayon field-hockey=hockey+stick jack-o-lantern=pumpkin
    mountain-cableway oncoming-bus snow-capped-mountain=mountain+with+snow umbrella-on-ground=parasol
    love-hotel synagogue post-office
"""

# plurals and substances, which take no article
NO_ARTICLE = """
    ballet+shoes briefs glasses gloves jeans shorts socks sunglasses goggles
    bacon shopping+bags blueberries broccoli butter cherries french+fries garlic grapes pancakes peanuts popcorn sushi
    headphones maracas books scissors fire
"""
